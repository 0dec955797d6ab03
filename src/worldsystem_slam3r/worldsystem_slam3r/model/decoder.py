# SPDX-License-Identifier: Apache-2.0
"""The multi-view decoder: reference views and source views look at each other, block by block.

Tensors of one side are (batch, views, tokens, dim). A view never attends to views of its own side.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from worldsystem_slam3r.model.attention import (
    LayerNorm,
    Mlp,
    SelfAttention,
    add_to,
    merge_heads,
    split_heads,
)
from worldsystem_slam3r.model.heads import PointHead
from worldsystem_slam3r.model.rope import Rotation, grid_rotation, rotate
from worldsystem_slam3r.model.sizes import NetworkSizes

PAIR_TOKENS = 1 << 16
"""Most (source view, target token) pairs attended at once: bounds memory, not the result."""


class Target(NamedTuple):
    """A side that looks: its stream after self-attention, and the queries made of it.

    `stream` is (batch, views, tokens, dim), `queries` (batch, views, heads, tokens, head width).
    """

    stream: Tensor
    queries: Tensor


class Offer(NamedTuple):
    """A side that is looked at: keys and values, each (batch, views, heads, tokens, head width)."""

    keys: Tensor
    values: Tensor


class CrossAttention(nn.Module):
    """Every target token attends to each source view by itself; the answers are max-pooled."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.projq = nn.Linear(dim, dim)
        self.projk = nn.Linear(dim, dim)
        self.projv = nn.Linear(dim, dim)
        self.proj = nn.Linear(dim, dim)

    def offer(self, sources: Tensor, tables: Rotation) -> Offer:
        """Keys and values of normed source views (batch, views, tokens, dim)."""
        keys = rotate(split_heads(self.projk(sources), self.heads), tables)
        return Offer(keys, split_heads(self.projv(sources), self.heads))

    def queries(self, targets: Tensor, tables: Rotation) -> Tensor:
        """Queries of normed target views (batch, views, tokens, dim)."""
        return rotate(split_heads(self.projq(targets), self.heads), tables)

    def pooled(self, queries: Tensor, offer: Offer) -> Tensor:
        """(batch, tokens of all targets, dim): element-wise maximum over the source views.

        All target tokens of a batch entry share one call per source view, so that neither keys
        nor values are copied per pair.
        """
        batch, views = offer.keys.shape[:2]
        joined = queries.transpose(1, 2).flatten(2, 3)
        chunk = max(1, PAIR_TOKENS // (batch * joined.shape[2]))
        best: Tensor | None = None
        for first in range(0, views, chunk):
            keys = offer.keys[:, first : first + chunk]
            values = offer.values[:, first : first + chunk]
            answers = self._answers(joined, keys, values)
            best = answers if best is None else torch.maximum(best, answers)
        assert best is not None  # a side is never empty
        return best

    def _answers(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        batch, views = keys.shape[:2]
        spread = queries[:, None].expand(batch, views, *queries.shape[1:]).flatten(0, 1)
        attended = functional.scaled_dot_product_attention(
            spread, keys.flatten(0, 1), values.flatten(0, 1)
        )
        answers: Tensor = self.proj(merge_heads(attended))
        return answers if views == 1 else answers.view(batch, views, *answers.shape[1:]).amax(dim=1)


class MultiviewBlock(nn.Module):
    """One block of one side, in the three parts that can be computed and kept apart."""

    def __init__(self, sizes: NetworkSizes) -> None:
        super().__init__()
        dim, heads = sizes.decoder_dim, sizes.decoder_heads
        self.norm1 = LayerNorm(dim)
        self.attn = SelfAttention(dim, heads)
        self.norm2 = LayerNorm(dim)
        self.norm_y = LayerNorm(dim)
        self.cross_attn = CrossAttention(dim, heads)
        self.norm3 = LayerNorm(dim)
        self.mlp = Mlp(dim, sizes.mlp_ratio * dim)

    def target(self, views: Tensor, tables: Rotation) -> Target:
        """What depends on the side's own views alone."""
        flat = views.flatten(0, 1)
        stream = add_to(flat, self.attn(self.norm1(flat), tables)).view_as(views)
        return Target(stream, self.cross_attn.queries(self.norm2(stream), tables))

    def offer(self, others: Tensor, tables: Rotation) -> Offer:
        """What the other side's views show to this one."""
        return self.cross_attn.offer(self.norm_y(others), tables)

    def meet(self, target: Target, offer: Offer) -> Tensor:
        """The block's output: cross-attention pooled over sources, then feed-forward."""
        seen = self.cross_attn.pooled(target.queries, offer).view_as(target.stream)
        x = add_to(target.stream, seen)
        return add_to(x, self.mlp(self.norm3(x)))

    def forward(self, views: Tensor, others: Tensor, tables: Rotation) -> Tensor:
        return self.meet(self.target(views, tables), self.offer(others, tables))


class Side(NamedTuple):
    """What a side's views give to block 0 without having seen the other side.

    It depends on each view alone, so that it can be kept and joined with others: that is exact.
    `added` are point map tokens that enter before every block, absent in image-to-points.
    """

    target: Target
    offer: Offer
    added: Tensor | None = None

    def tensors(self) -> tuple[Tensor, ...]:
        """All tensors, in the order that `of` takes them."""
        return (*self.target, *self.offer, *(() if self.added is None else (self.added,)))

    @classmethod
    def of(cls, tensors: Sequence[Tensor]) -> Side:
        """Inverse of `tensors`."""
        added = tensors[4] if len(tensors) > 4 else None
        return cls(Target(*tensors[:2]), Offer(*tensors[2:4]), added)

    def spread(self, batch: int) -> Side:
        """The same views for each of `batch` windows; needs a side of batch 1."""

        def wide(x: Tensor) -> Tensor:
            return x.expand(batch, *x.shape[1:])

        added = None if self.added is None else wide(self.added)
        return Side(Target(*map(wide, self.target)), Offer(*map(wide, self.offer)), added)


def join_views(sides: Sequence[Side]) -> Side:
    """Sides of the same batch and grid as one, their views one after another."""
    targets = [torch.cat(parts, dim=1) for parts in zip(*(s.target for s in sides), strict=True)]
    offers = [torch.cat(parts, dim=1) for parts in zip(*(s.offer for s in sides), strict=True)]
    added = [s.added for s in sides if s.added is not None]
    return Side(Target(*targets), Offer(*offers), torch.cat(added, dim=1) if added else None)


class TwoSidedDecoder(nn.Module):
    """Two stacks of blocks, references (1) and sources (2), with one point head each."""

    def __init__(self, sizes: NetworkSizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.enc_norm = LayerNorm(sizes.encoder_dim)
        self.decoder_embed = nn.Linear(sizes.encoder_dim, sizes.decoder_dim)
        depth = range(sizes.decoder_depth)
        self.mv_dec_blocks1 = nn.ModuleList(MultiviewBlock(sizes) for _ in depth)
        self.mv_dec_blocks2 = nn.ModuleList(MultiviewBlock(sizes) for _ in depth)
        self.dec_norm = LayerNorm(sizes.decoder_dim)
        self.downstream_head1 = PointHead(sizes)
        self.downstream_head2 = PointHead(sizes)

    def decoder_tables(self, grid: tuple[int, int]) -> Rotation:
        """Position tables of the decoder's heads for a token grid (rows, columns)."""
        head_dim = self.sizes.decoder_dim // self.sizes.decoder_heads
        return grid_rotation(grid, head_dim, self.sizes.rope_base, self.enc_norm.weight.device)

    def blocks(self, i: int) -> tuple[MultiviewBlock, MultiviewBlock]:
        """Block `i` of the references and of the sources."""
        return cast(
            tuple[MultiviewBlock, MultiviewBlock], (self.mv_dec_blocks1[i], self.mv_dec_blocks2[i])
        )

    def embed(self, tokens: Tensor) -> Tensor:
        """Decoder tokens of raw encoder tokens; the norm belongs to this network alone."""
        embedded: Tensor = self.decoder_embed(self.enc_norm(tokens))
        return embedded

    def start(
        self, views: Tensor, grid: tuple[int, int], *, reference: bool, added: Tensor | None = None
    ) -> Side:
        """The part of block 0 that `views` (batch, views, tokens, dim) need no other side for."""
        own, other = self.blocks(0) if reference else reversed(self.blocks(0))
        x = views if added is None else views + added
        tables = self.decoder_tables(grid)
        return Side(own.target(x, tables), other.offer(x, tables), added)

    def first_meeting(self, ref: Side, src: Side) -> tuple[Tensor, Tensor]:
        """Both sides after block 0."""
        of_refs, of_sources = self.blocks(0)
        return of_refs.meet(ref.target, src.offer), of_sources.meet(src.target, ref.offer)

    def decode(
        self, ref: Side, src: Side, grid: tuple[int, int], *, want_ref: bool, want_src: bool
    ) -> tuple[Tensor | None, Tensor | None]:
        """Final tokens of each side that is wanted; the last block of the other is left out.

        Both sides of a block see what the block before it gave.
        """
        tables = self.decoder_tables(grid)
        r, s = self.first_meeting(ref, src)
        last = self.sizes.decoder_depth - 1
        for i in range(1, last + 1):
            r_in = r if ref.added is None else r + ref.added
            s_in = s if src.added is None else s + src.added
            of_refs, of_sources = self.blocks(i)
            if i < last or want_ref:
                r = of_refs(r_in, s_in, tables)
            if i < last or want_src:
                s = of_sources(s_in, r_in, tables)
        return self.dec_norm(r) if want_ref else None, self.dec_norm(s) if want_src else None
