# SPDX-License-Identifier: Apache-2.0
"""Pictures as the networks were trained on them: 224 x 224 around the centre, in [-1, 1]."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float64, UInt8
from PIL import Image
from torch import Tensor

from worldsystem_core.errors import BackendError

INPUT_PX = 224


@dataclass(frozen=True)
class Crop:
    """How a picture of `width` x `height` becomes the networks' input: resize, then cut out."""

    width: int
    height: int
    resized_width: int
    resized_height: int
    left: int
    top: int

    @classmethod
    def of(cls, width: int, height: int) -> Crop:
        """The crop of a picture's size; the short side becomes 224, the long side is cut.

        A side of zero, or one side more than 20 times the other, is a `BackendError`.
        """
        if min(width, height) < 1 or max(width, height) > 20 * min(width, height):
            raise BackendError(
                f"a picture of {width} x {height} pixels cannot be reduced to {INPUT_PX} x "
                f"{INPUT_PX}; give pictures whose long side is at most 20 times the short one"
            )
        longest = max(width, height)
        target = round(INPUT_PX * max(width / height, height / width))
        resized_width = round(width * target / longest)
        resized_height = round(height * target / longest)
        half = INPUT_PX // 2
        left, top = resized_width // 2 - half, resized_height // 2 - half
        return cls(width, height, resized_width, resized_height, left, top)

    def intrinsics(self, K: Float64[np.ndarray, "3 3"]) -> Float64[np.ndarray, "3 3"]:
        """Intrinsics of the cut-out, from those of the whole picture (pixel centres at integers).

        The picture must be free of lens distortion, as in training.
        """
        scale_x = self.resized_width / self.width
        scale_y = self.resized_height / self.height
        K_crop = np.array(K, np.float64)
        K_crop[0, :2] *= scale_x
        K_crop[1, :2] *= scale_y
        K_crop[0, 2] = (K[0, 2] + 0.5) * scale_x - 0.5 - self.left
        K_crop[1, 2] = (K[1, 2] + 0.5) * scale_y - 0.5 - self.top
        return K_crop

    def full_from_crop(self, uv_px: Float[np.ndarray, "n 2"]) -> Float64[np.ndarray, "n 2"]:
        """Pixels of the whole picture where pixels (u, v) of the cut-out come from."""
        scale = [self.width / self.resized_width, self.height / self.resized_height]
        full: Float64[np.ndarray, "n 2"]
        full = (np.asarray(uv_px, np.float64) + 0.5 + [self.left, self.top]) * scale - 0.5
        return full


def network_picture(
    rgb: UInt8[np.ndarray, "h w 3"], *, smooth_enlarging: bool = False
) -> UInt8[np.ndarray, "224 224 3"]:
    """Resize with an anti-aliased Lanczos filter and cut out the centre.

    `smooth_enlarging` takes the bicubic filter for pictures that get larger, as the loader of
    picture folders did when the networks were trained; videos always went through Lanczos.
    """
    crop = Crop.of(rgb.shape[1], rgb.shape[0])
    enlarging = max(crop.width, crop.height) <= max(crop.resized_width, crop.resized_height)
    bicubic = smooth_enlarging and enlarging
    resample = Image.Resampling.BICUBIC if bicubic else Image.Resampling.LANCZOS
    size = (crop.resized_width, crop.resized_height)
    resized = np.asarray(Image.fromarray(rgb).resize(size, resample))
    rows = slice(crop.top, crop.top + INPUT_PX)
    return np.ascontiguousarray(resized[rows, crop.left : crop.left + INPUT_PX])


def normalised(pictures: UInt8[np.ndarray, "n h w 3"], device: torch.device | str) -> Tensor:
    """Float32 images (n, 3, h, w) in [-1, 1] of RGB pictures."""
    channels = torch.from_numpy(np.ascontiguousarray(pictures)).to(device).permute(0, 3, 1, 2)
    return channels.to(torch.float32).div(255.0).sub(0.5).div(0.5).contiguous()
