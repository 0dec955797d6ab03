# SPDX-License-Identifier: Apache-2.0
"""The layers that encoder and decoder share: attention within a view, feed-forward, norms."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from worldsystem_slam3r.model.rope import Rotation, rotate


class LayerNorm(nn.LayerNorm):
    """Layer norm with the epsilon of the published networks."""

    def __init__(self, dim: int) -> None:
        super().__init__(dim, eps=1e-6)


class Mlp(nn.Module):
    """Two linear layers with an exact (erf) GELU between them."""

    def __init__(self, dim: int, hidden_dim: int, out_dim: int | None = None) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden_dim)
        self.fc2 = nn.Linear(hidden_dim, out_dim or dim)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.fc1(x)
        if torch.is_grad_enabled():
            hidden = functional.gelu(hidden)
        else:
            # in place: the widest tensor of a block, whose copy cost 8 % of this layer on a CPU
            torch.ops.aten.gelu_(hidden)
        out: Tensor = self.fc2(hidden)
        return out


class SelfAttention(nn.Module):
    """Attention among the tokens of one view; `x` is (n, tokens, dim)."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, tables: Rotation) -> Tensor:
        n, tokens, dim = x.shape
        qkv = self.qkv(x).view(n, tokens, 3, self.heads, dim // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        attended = functional.scaled_dot_product_attention(rotate(q, tables), rotate(k, tables), v)
        joined: Tensor = self.proj(merge_heads(attended))
        return joined


def add_to(stream: Tensor, update: Tensor) -> Tensor:
    """The stream with a layer's fresh output added; without gradients, in the output's memory."""
    if torch.is_grad_enabled() or update.dtype != stream.dtype:
        return stream + update
    return update.add_(stream)


def split_heads(x: Tensor, heads: int) -> Tensor:
    """(..., tokens, dim) to (..., heads, tokens, dim / heads)."""
    return x.view(*x.shape[:-1], heads, -1).transpose(-3, -2)


def merge_heads(x: Tensor) -> Tensor:
    """Inverse of `split_heads`."""
    return x.transpose(-3, -2).flatten(-2)
