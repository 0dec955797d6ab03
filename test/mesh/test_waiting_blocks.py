# SPDX-License-Identifier: Apache-2.0
"""Blocks that wait to be made anew: whose turn it is, and what they keep."""

from __future__ import annotations

import numpy as np
import pytest


@pytest.fixture
def mesher(make_mesher, plane_keyframes):
    """After ten keyframes along x, the last at x = 9; nothing waits."""
    made = make_mesher(min_weight=0.5)
    for keyframe in plane_keyframes(10):
        made.integrate(keyframe)
    return made


def parts_of(waiting) -> list[np.ndarray]:
    return [part for parts in waiting._of_chunk.values() for part in parts]


def test_far_blocks_get_their_turn_though_near_ones_wait_anew_before_each_step(mesher):
    refusion = mesher._fusion._made.refusion
    far, near = mesher.views.held(0).band[:8], mesher.views.held(9).band
    refusion._waiting.add(far)
    for _ in range(100):
        refusion._waiting.add(near)
        refusion._make_some(1)
    assert refusion._waiting.has(near).any()
    assert not refusion._waiting.has(far).any()


def test_each_chunk_keeps_its_own_blocks_alone_in_memory(mesher):
    waiting = mesher._fusion._made.refusion._waiting
    waiting.add(mesher.views.held(0).blocks)
    parts = parts_of(waiting)
    assert len(parts) > 1
    assert all(part.base is None for part in parts)


def test_blocks_that_are_let_go_wait_no_longer_and_the_others_still_do(mesher):
    waiting = mesher._fusion._made.refusion._waiting
    blocks = mesher.views.held(0).band
    waiting.add(blocks)
    waiting.let_go(np.concatenate([blocks[::2], mesher.views.held(9).band]))
    assert sorted(np.concatenate(parts_of(waiting)).tolist()) == blocks[1::2].tolist()
    np.testing.assert_array_equal(waiting.has(blocks), np.arange(len(blocks)) % 2 == 1)
    waiting.let_go(blocks)
    assert waiting.is_empty
    assert waiting.count == 0
