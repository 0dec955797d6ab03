# SPDX-License-Identifier: Apache-2.0
"""Sizes of keyframes that are told again."""

from __future__ import annotations

import pytest

from worldsystem_mesh.told_sizes import ToldSizes


def test_sizes_go_on_from_where_a_keyframe_was_when_it_was_told_again():
    sizes = ToldSizes()
    sizes.begin(1)
    assert sizes.since_fused({1: 20.0}) == {1: 20.0}
    sizes.tell_again((1,))
    assert sizes.since_fused({1: 1.05, 2: 3.0}) == {1: 21.0, 2: 3.0}
    assert sizes.since_fused({1: 1.1})[1] == pytest.approx(22.0)
    sizes.tell_again((1,))
    assert sizes.since_fused({1: 0.5})[1] == pytest.approx(11.0)


def test_a_keyframe_that_is_fused_anew_or_gone_begins_with_its_own_size():
    sizes = ToldSizes()
    for end in (lambda: sizes.begin(1), lambda: sizes.forget((1,))):
        sizes.since_fused({1: 20.0})
        sizes.tell_again((1,))
        end()
        assert sizes.since_fused({1: 1.5}) == {1: 1.5}


def test_a_keyframe_told_again_before_any_correction_has_its_own_size():
    sizes = ToldSizes()
    sizes.tell_again((1,))
    assert sizes.since_fused({1: 2.0}) == {1: 2.0}
