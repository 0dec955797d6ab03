# SPDX-License-Identifier: Apache-2.0
"""The encoder of SAM 2 and EdgeTAM, run once a picture for all objects.

On a CUDA device its some thousand small kernels are recorded at the first picture and replayed.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from worldsystem_core.cuda_graphs import Replayed
from worldsystem_segment.learned.pixels import SAM2_MEAN, SAM2_STD, square_pixels

Vision = dict[str, list[Tensor]]  # the encoder's features and positions by level, each (hw, 1, c)


class VisionEncoder:
    """Features of pictures, in the form of the library's cache; for one thread.

    `model` is a `Sam2VideoModel` or `EdgeTamVideoModel` (transformers); `size_px` is the side of
    the square that it takes.
    """

    def __init__(self, model: Any, size_px: int) -> None:
        self._model = model
        self._size_px = size_px
        self._levels = 0
        self.runs = 0
        on_cuda = torch.device(model.device).type == "cuda"
        self._run = Replayed(self._compute) if on_cuda else self._compute

    def pixels(self, rgb: UInt8[np.ndarray, "h w 3"]) -> Tensor:
        """The picture as the network takes it, (1, 3, size, size), on its device."""
        device, dtype = self._model.device, self._model.dtype
        return square_pixels(rgb, self._size_px, SAM2_MEAN, SAM2_STD, device).to(dtype)

    def __call__(self, pixels: Tensor) -> Vision:
        self.runs += 1
        found = list(self._run(None, pixels))
        return {
            "vision_feats": found[: self._levels],
            "vision_pos_embeds": found[self._levels :],
        }

    def _compute(self, _: Hashable, pixels: Tensor) -> tuple[Tensor, ...]:
        encoded = self._model.get_image_features(pixels, return_dict=True)
        self._levels = len(encoded.fpn_hidden_states)
        return (*encoded.fpn_hidden_states, *encoded.fpn_position_encoding)
