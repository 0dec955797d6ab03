# SPDX-License-Identifier: Apache-2.0
"""Which pixels are learned from: every second one says nearly as much as all of them, for less."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor
from torch.nn import functional

from worldsystem_slam3r.model.heads import PointHead, PointMap, activate


@dataclass(frozen=True)
class Pixels:
    """Every `step`-th row and column from (`row`, `column`) on; `step` divides the patch's side."""

    step: int = 1
    row: int = 0
    column: int = 0

    @classmethod
    def random(cls, step: int, rng: np.random.Generator) -> Pixels:
        """A grid of the given step, anywhere."""
        return cls(step, int(rng.integers(step)), int(rng.integers(step)))

    def of(self, image: Tensor, *, axis: int) -> Tensor:
        """These pixels of a tensor whose rows are along `axis` and columns along the next."""
        rows, columns = slice(self.row, None, self.step), slice(self.column, None, self.step)
        return image[(*(slice(None),) * axis, rows, columns)]


EVERY = Pixels()


def head_at(head: PointHead, tokens: Tensor, grid: tuple[int, int], pixels: Pixels) -> PointMap:
    """The head's point map (b, v, i, j) of tokens (b, v, tokens, dim), at some pixels only."""
    if pixels == EVERY:
        return PointMap(*head(tokens, grid))
    side, (rows, columns) = head.patch_px, grid
    weight = pixels.of(head.proj.weight.float().view(4, side, side, -1), axis=1)
    bias = pixels.of(head.proj.bias.float().view(4, side, side), axis=1)
    kept = weight.shape[1]
    raw = functional.linear(tokens.float(), weight.flatten(0, 2), bias.flatten())
    raw = raw.view(*raw.shape[:2], rows, columns, 4, kept, kept)
    image = raw.permute(0, 1, 2, 5, 3, 6, 4).flatten(4, 5).flatten(2, 3)
    return activate(image[..., :3], image[..., 3])
