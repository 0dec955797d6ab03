# SPDX-License-Identifier: Apache-2.0
"""Masks of pictures that wait for their keyframes: small, bounded, and unchanged when they come."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from worldsystem_segment.config import SegmentConfig
from worldsystem_segment.learned.backend import LearnedBackend
from worldsystem_segment.learned.kept_masks import KEPT_BYTES, KEPT_PICTURES, KeptMasks
from worldsystem_segment.learned.mask_sessions import ObjectMask

SHAPE = (1080, 1920)


def _discs(number: int, count: int = 20) -> dict[int, ObjectMask]:
    """Masks of picture `number` as the sessions give them: parts of one array."""
    random = np.random.default_rng(number)
    whole = np.zeros((count, *SHAPE), bool)
    v, u = np.ogrid[-100:100, -100:100]
    for mask in whole:
        top, left = random.integers(0, (SHAPE[0] - 200, SHAPE[1] - 200))
        mask[top : top + 200, left : left + 200] = u**2 + v**2 < random.integers(20, 100) ** 2
    return {i: ObjectMask(mask, 0.1 * i) for i, mask in enumerate(whole)}


class _Discs:
    """Follows other discs in each picture."""

    def __init__(self) -> None:
        self.followed, self._frame = {}, -1

    def step(self, rgb, phrases) -> dict[int, ObjectMask]:
        self._frame += 1
        return _discs(self._frame)


def _assert_same(masks: dict[int, ObjectMask], expected: dict[int, ObjectMask]) -> None:
    assert masks.keys() == expected.keys()
    for number, mask in masks.items():
        assert np.array_equal(mask.mask, expected[number].mask)
        assert mask.mask.dtype == bool
        assert mask.presence == expected[number].presence


def test_masks_of_sixty_four_large_pictures_are_small_and_come_out_as_they_went_in() -> None:
    backend = LearnedBackend(SegmentConfig(), _Discs())
    rgb = np.zeros((*SHAPE, 3), np.uint8)
    tracemalloc.start()
    for frame_id in range(KEPT_PICTURES):
        backend.look(frame_id, rgb, ())
    held_bytes, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # a disc's square is 5 kB of bits at most: 6.4 MB in all, and what Python needs around them
    assert held_bytes < 10_000_000
    for frame_id in (0, KEPT_PICTURES - 1):
        _assert_same(backend._seen[frame_id], _discs(frame_id))
    backend.look(KEPT_PICTURES, rgb, ())
    assert 0 not in backend._seen
    assert 1 in backend._seen


def test_pictures_whose_masks_are_too_large_together_make_way_and_never_the_newest() -> None:
    kept, full = KeptMasks(), np.ones(SHAPE, bool)
    for frame_id in range(40):
        kept.keep(frame_id, dict.fromkeys(range(20), ObjectMask(full, 1.0)))
        assert kept.held_bytes <= KEPT_BYTES
    assert len(kept) == KEPT_BYTES // (20 * full.size // 8)
    assert 39 in kept
    kept.keep(40, dict.fromkeys(range(600), ObjectMask(full, 1.0)))
    assert len(kept) == 1
    assert 40 in kept


@pytest.mark.parametrize("place", [np.s_[:0], np.s_[:], np.s_[2, 6], np.s_[1:, 3:5], np.s_[::2]])
def test_any_mask_comes_out_as_it_went_in(place) -> None:
    mask = np.zeros((3, 7), bool)
    mask[place] = True
    kept = KeptMasks()
    kept.keep(5, {1: ObjectMask(mask, -0.5)})
    _assert_same(kept[5], {1: ObjectMask(mask, -0.5)})
    kept.keep(6, {})
    assert kept[6] == {}
