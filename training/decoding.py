# SPDX-License-Identifier: Apache-2.0
"""The decoder as training runs it: both sides wanted, one block watched, heads at some pixels."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from matching import Places, matching_loss, patch_places
from pixels import EVERY, Pixels, head_at
from torch import Tensor
from windows import Views

from worldsystem_slam3r.model.decoder import Offer, Side, Target, TwoSidedDecoder

_WATCHED_BLOCK = 1


@dataclass(frozen=True)
class Lesson:
    """What the loss asks for beside the points, and at which pixels.

    `matching` is the weight of the attention's loss (see `matching`).
    """

    confident: bool = False
    matching: float = 0.0
    pixels: Pixels = EVERY


PLAIN = Lesson()


@dataclass(frozen=True, eq=False)
class Seen:
    """Points and confidence of all views, references first; how much the attention missed."""

    points: Float[Tensor, "b v h w 3"]
    confidence: Float[Tensor, "b v h w"]
    missed: Float[Tensor, ""]


def look(
    net: TwoSidedDecoder,
    sides: tuple[Side, Side],
    grid: tuple[int, int],
    views: Views,
    lesson: Lesson = PLAIN,
) -> Seen:
    """What the decoder and the heads make of references and sources, which `views` are in turn."""
    decode = _decode_watched if lesson.matching else _decode
    r, s, missed = decode(net, sides, grid, views)
    of_refs = head_at(net.downstream_head1, r, grid, lesson.pixels)
    of_sources = head_at(net.downstream_head2, s, grid, lesson.pixels)
    return Seen(
        torch.cat([of_refs.points, of_sources.points], dim=1),
        torch.cat([of_refs.confidence, of_sources.confidence], dim=1),
        missed,
    )


def _decode(
    net: TwoSidedDecoder, sides: tuple[Side, Side], grid: tuple[int, int], _views: Views
) -> tuple[Tensor, Tensor, Tensor]:
    r, s = net.decode(*sides, grid, want_ref=True, want_src=True)
    assert r is not None
    assert s is not None
    return r, s, r.new_zeros(())


def _decode_watched(
    net: TwoSidedDecoder, sides: tuple[Side, Side], grid: tuple[int, int], views: Views
) -> tuple[Tensor, Tensor, Tensor]:
    """`TwoSidedDecoder.decode` in the parts of its blocks, and the loss of the watched one."""
    ref, src = sides
    tables = net.decoder_tables(grid)
    count = ref.target.stream.shape[1]
    places = patch_places(views, grid)
    r, s = net.first_meeting(ref, src)
    missed = r.new_zeros(())
    for i in range(1, net.sizes.decoder_depth):
        r_in = r if ref.added is None else r + ref.added
        s_in = s if src.added is None else s + src.added
        of_refs, of_sources = net.blocks(i)
        refs, shown_to_refs = of_refs.target(r_in, tables), of_refs.offer(s_in, tables)
        sources, shown_to_sources = of_sources.target(s_in, tables), of_sources.offer(r_in, tables)
        if i == _WATCHED_BLOCK:
            first, rest = places.of(slice(count)), places.of(slice(count, None))
            missed = _missed(refs, shown_to_refs, first, rest)
            missed = missed + _missed(sources, shown_to_sources, rest, first)
        r, s = of_refs.meet(refs, shown_to_refs), of_sources.meet(sources, shown_to_sources)
    return net.dec_norm(r), net.dec_norm(s), missed


def _missed(target: Target, offer: Offer, own: Places, other: Places) -> Tensor:
    return matching_loss(target.queries, offer.keys, own, other)
