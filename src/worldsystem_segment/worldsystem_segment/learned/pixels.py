# SPDX-License-Identifier: Apache-2.0
"""Pictures as the networks want them, without transformers' processors, which need torchvision."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor
from torch.nn.functional import interpolate

from worldsystem_core.cuda_array import copies

SAM2_MEAN, SAM2_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SAM3_MEAN, SAM3_STD = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
DINO_SHORT, DINO_LONG = 800, 1333


def square_pixels(
    rgb: UInt8[np.ndarray, "h w 3"],
    size: int,
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
    device: torch.device | str = "cpu",
) -> Float[Tensor, "1 3 s s"]:
    """The whole picture squeezed into a square, rounded as the published processors do; worked out
    on `device`, which gets the picture's bytes alone, and once for all networks."""
    raw = copies.on(rgb, device).permute(2, 0, 1)[None].float()
    fitted = interpolate(
        raw, size=(size, size), mode="bilinear", antialias=True, align_corners=False
    )
    return _normalised(fitted.round().clamp(0, 255) / 255.0, mean, std)


def dino_pixels(
    rgb: UInt8[np.ndarray, "h w 3"],
    short: int = DINO_SHORT,
    long: int = DINO_LONG,
    *,
    device: torch.device | str = "cpu",
) -> Float[Tensor, "1 3 a b"]:
    """The picture with its shorter edge `short`, the longer one at most `long`, on `device`."""
    height, width = rgb.shape[:2]
    scale = min(short / min(height, width), long / max(height, width))
    size = (max(1, round(height * scale)), max(1, round(width * scale)))
    raw = copies.on(rgb, device).permute(2, 0, 1)[None].float()
    fitted = interpolate(raw, size=size, mode="bilinear", antialias=True, align_corners=False)
    return _normalised(fitted.round().clamp(0, 255) / 255.0, SAM2_MEAN, SAM2_STD)


def picture_masks(
    logits: Float[Tensor, "n 1 a b"], height: int, width: int
) -> Bool[np.ndarray, "n h w"]:
    """Mask logits of any size as masks of the picture."""
    whole = interpolate(logits.float(), (height, width), mode="bilinear", align_corners=False)
    return np.asarray((whole[:, 0] > 0).cpu().numpy())


def _normalised(
    pixels: Float[Tensor, "1 3 a b"],
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
) -> Float[Tensor, "1 3 a b"]:
    centre, spread = (torch.tensor(v, device=pixels.device).view(1, 3, 1, 1) for v in (mean, std))
    return (pixels - centre) / spread
