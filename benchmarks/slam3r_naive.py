# SPDX-License-Identifier: Apache-2.0
"""The SLAM3R networks written down step by step, as the yardstick for ours.

Softmax is explicit, keys and values are copied for each pair of views, every block and every head
is computed, and nothing is kept from one call to the next. It reads the same checkpoints by the
same keys, and shares no code with the networks that it is compared to.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

State = Mapping[str, Tensor]


class NaiveNetworks:
    """Both networks as functions of their tensors; `heads` is (encoder, decoder)."""

    def __init__(self, i2p: State, l2w: State, heads: tuple[int, int]) -> None:
        self.i2p_state, self.l2w_state = i2p, l2w
        self.encoder_heads, self.decoder_heads = heads

    def encode(self, images: Tensor) -> Tensor:
        """Raw tokens of images (n, 3, h, w)."""
        w = self.i2p_state
        x = functional.conv2d(
            images, w["patch_embed.proj.weight"], w["patch_embed.proj.bias"], stride=16
        )
        positions = grid_positions(x.shape[2], x.shape[3]).to(x.device).expand(len(x), -1, -1)
        x = x.flatten(2).transpose(1, 2)
        for i in range(depth_of(w, "enc_blocks")):
            block = f"enc_blocks.{i}"
            normed = norm(x, w, f"{block}.norm1")
            x = x + self_attention(normed, w, f"{block}.attn", positions, self.encoder_heads)
            x = x + mlp(norm(x, w, f"{block}.norm2"), w, f"{block}.mlp")
        return x

    def i2p(self, tokens: Tensor, ref: int) -> tuple[Tensor, Tensor]:
        """Points and confidence of all views (views, tokens, dim), the reference first."""
        w = self.i2p_state
        order = [ref, *(i for i in range(len(tokens)) if i != ref)]
        embedded = linear(norm(tokens[order], w, "enc_norm"), w, "decoder_embed")
        return self._decoded(embedded[:1], embedded[1:], None, None, w)

    def l2w(
        self, ref_tokens: Tensor, ref_points: Tensor, src_tokens: Tensor, src_points: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Points and confidence of references, then sources."""
        w = self.l2w_state
        ref, src = (
            linear(norm(tokens, w, "enc_norm"), w, "decoder_embed")
            for tokens in (ref_tokens, src_tokens)
        )
        ref_added, src_added = (
            functional.conv2d(
                points.permute(0, 3, 1, 2),
                w["ponit_embedder.weight"],
                w["ponit_embedder.bias"],
                stride=16,
            )
            .flatten(2)
            .transpose(1, 2)
            for points in (ref_points, src_points)
        )
        return self._decoded(ref, src, ref_added, src_added, w)

    def retrieval_scores(self, query_tokens: Tensor, candidate_tokens: Tensor) -> Tensor:
        """Scores of candidates for one query (1, tokens, dim)."""
        w = self.i2p_state
        r, s = (
            linear(norm(tokens, w, "enc_norm"), w, "decoder_embed")
            for tokens in (query_tokens, candidate_tokens)
        )
        for i in range(2):
            r, s = self._block(r, s, w, 1, i), self._block(s, r, w, 2, i)
        normed = functional.layer_norm(
            s, s.shape[-1:], w["corr_score_norm.weight"], w["corr_score_norm.bias"], 1e-5
        )
        mean = (1 + mlp(normed, w, "corr_score_proj").exp()).mean(dim=(1, 2))
        return (mean - 1) / mean

    def _decoded(
        self, r: Tensor, s: Tensor, r_added: Tensor | None, s_added: Tensor | None, w: State
    ) -> tuple[Tensor, Tensor]:
        for i in range(depth_of(w, "mv_dec_blocks1")):
            r_in = r if r_added is None else r + r_added
            s_in = s if s_added is None else s + s_added
            r, s = self._block(r_in, s_in, w, 1, i), self._block(s_in, r_in, w, 2, i)
        maps = [
            head(norm(tokens, w, "dec_norm"), w, name)
            for tokens, name in ((r, "downstream_head1"), (s, "downstream_head2"))
        ]
        points, confidence = (torch.cat(pair) for pair in zip(*maps, strict=True))
        return points, confidence

    def _block(self, x: Tensor, y: Tensor, w: State, side: int, i: int) -> Tensor:
        block, heads = f"mv_dec_blocks{side}.{i}", self.decoder_heads
        positions = square_positions(x.shape[1]).to(x.device)
        at_x, at_y = positions.expand(len(x), -1, -1), positions.expand(len(y), -1, -1)
        x = x + self_attention(norm(x, w, f"{block}.norm1"), w, f"{block}.attn", at_x, heads)
        queries, sources = norm(x, w, f"{block}.norm2"), norm(y, w, f"{block}.norm_y")
        cross = f"{block}.cross_attn"
        q = rope(to_heads(linear(queries, w, f"{cross}.projq"), heads), at_x)
        k = rope(to_heads(linear(sources, w, f"{cross}.projk"), heads), at_y)
        v = to_heads(linear(sources, w, f"{cross}.projv"), heads)
        of_target = torch.arange(len(x), device=x.device).repeat_interleave(len(y))
        of_source = torch.arange(len(y), device=x.device).repeat(len(x))
        pairs = attention(
            q.index_select(0, of_target), k.index_select(0, of_source), v.index_select(0, of_source)
        )
        answers = linear(pairs, w, f"{cross}.proj").view(len(x), len(y), *x.shape[1:])
        x = x + answers.max(dim=1).values
        return x + mlp(norm(x, w, f"{block}.norm3"), w, f"{block}.mlp")


def linear(x: Tensor, w: State, name: str) -> Tensor:
    """The linear layer `name`."""
    return functional.linear(x, w[f"{name}.weight"], w[f"{name}.bias"])


def norm(x: Tensor, w: State, name: str) -> Tensor:
    """The layer norm `name`."""
    return functional.layer_norm(x, x.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"], 1e-6)


def mlp(x: Tensor, w: State, name: str) -> Tensor:
    """Two linear layers with a GELU between them."""
    return linear(functional.gelu(linear(x, w, f"{name}.fc1")), w, f"{name}.fc2")


def self_attention(x: Tensor, w: State, name: str, positions: Tensor, heads: int) -> Tensor:
    """Attention within each view."""
    q, k, v = linear(x, w, f"{name}.qkv").chunk(3, dim=-1)
    q, k = (rope(to_heads(part, heads), positions) for part in (q, k))
    return linear(attention(q, k, to_heads(v, heads)), w, f"{name}.proj")


def to_heads(x: Tensor, heads: int) -> Tensor:
    """(n, tokens, dim) to (n, heads, tokens, head width)."""
    return x.reshape(*x.shape[:2], heads, -1).transpose(1, 2)


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Softmax attention, heads joined again."""
    weights = (q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])).softmax(dim=-1)
    return (weights @ v).transpose(1, 2).flatten(2)


def rope(x: Tensor, positions: Tensor) -> Tensor:
    """Turn the first half of each head vector by y, the second by x."""
    half = x.shape[-1] // 2
    channel = torch.arange(0, half, 2, dtype=torch.float32, device=x.device) / half
    turned = []
    for part, position in ((x[..., :half], positions[..., 0]), (x[..., half:], positions[..., 1])):
        angle = position[:, None, :, None] * 100.0**-channel
        cos, sin = angle.cos().repeat(1, 1, 1, 2), angle.sin().repeat(1, 1, 1, 2)
        u, v = part.chunk(2, dim=-1)
        turned.append(part * cos + torch.cat([-v, u], dim=-1) * sin)
    return torch.cat(turned, dim=-1)


def head(tokens: Tensor, w: State, name: str) -> tuple[Tensor, Tensor]:
    """Points and confidence of decoder tokens."""
    edge = math.isqrt(tokens.shape[1])
    channels = linear(tokens, w, f"{name}.proj").transpose(1, 2)
    image = functional.pixel_shuffle(channels.reshape(len(tokens), -1, edge, edge), 16)
    raw = image.permute(0, 2, 3, 1)
    length = raw[..., :3].norm(dim=-1, keepdim=True)
    return raw[..., :3] / length.clamp(min=1e-8) * length.expm1(), 1 + raw[..., 3].exp()


def grid_positions(rows: int, columns: int) -> Tensor:
    """(tokens, 2) rows and columns of tokens."""
    return torch.cartesian_prod(torch.arange(rows), torch.arange(columns))


def square_positions(tokens: int) -> Tensor:
    """Positions in a square grid of that many tokens."""
    return grid_positions(math.isqrt(tokens), math.isqrt(tokens))


def depth_of(w: State, blocks: str) -> int:
    """How many blocks of that name a checkpoint has."""
    return 1 + max(int(key.split(".")[1]) for key in w if key.startswith(f"{blocks}."))
