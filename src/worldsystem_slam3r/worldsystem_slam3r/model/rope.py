# SPDX-License-Identifier: Apache-2.0
"""Rotary position code in two dimensions: a token's head vector turns with its row and column."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor


class Rotation(NamedTuple):
    """Cosines and signed sines for every token and channel, each (tokens, head width)."""

    cos: Tensor
    sin: Tensor


def grid_positions(rows: int, columns: int, device: torch.device) -> Tensor:
    """(rows * columns, 2) integer (y, x) of every token, row by row."""
    y = torch.arange(rows, device=device).repeat_interleave(columns)
    x = torch.arange(columns, device=device).repeat(rows)
    return torch.stack([y, x], dim=-1)


def rotation(positions_yx: Tensor, head_dim: int, base: float) -> Rotation:
    """Tables for integer positions (..., tokens, 2), in float32: (..., tokens, head_dim).

    The first half of a head vector turns with y, the second with x. Within a half, channel i and
    channel i + head_dim / 4 form the pair that turns by `position * base ** (-i / (head_dim / 4))`.
    """
    quarter = head_dim // 4
    steps = torch.arange(quarter, device=positions_yx.device, dtype=torch.float32) / quarter
    angle = positions_yx.to(torch.float32)[..., None] * base**-steps
    cos, sin = angle.cos(), angle.sin()
    pair_cos = torch.cat([cos, cos], dim=-1).flatten(-2)
    pair_sin = torch.cat([-sin, sin], dim=-1).flatten(-2)
    return Rotation(pair_cos, pair_sin)


@lru_cache(maxsize=32)
def grid_rotation(
    grid: tuple[int, int], head_dim: int, base: float, device: torch.device
) -> Rotation:
    """Tables of a whole token grid (rows, columns), made once."""
    with torch.inference_mode(False), torch.no_grad():
        return rotation(grid_positions(*grid, device), head_dim, base)


def rotate(tokens: Tensor, tables: Rotation) -> Tensor:
    """Turn head vectors (..., tokens, head_dim) by their positions' tables.

    Computed in float32, returned in the type of `tokens`.
    """
    u_y, v_y, u_x, v_x = tokens.chunk(4, dim=-1)
    partner = torch.cat([v_y, u_y, v_x, u_x], dim=-1)
    return torch.addcmul(tokens * tables.cos, partner, tables.sin).to(tokens.dtype)
