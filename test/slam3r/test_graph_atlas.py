# SPDX-License-Identifier: Apache-2.0
"""Which keyframes an atlas tells again, beside a rule that looks at each by itself."""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

from worldsystem_core.geometry.sim3 import Sim3
from worldsystem_slam3r.graph import atlas
from worldsystem_slam3r.graph.atlas import Kept

NEAR_LIMIT = (0.0, 0.5, 0.999, 1.001, 3.0)


def kept_after(number: int, shift: float, turn: float, growth: float) -> Kept:
    """A keyframe that lies elsewhere than was told by these shares of what is noticeable."""
    random = np.random.default_rng(number)
    told = Sim3(
        float(random.uniform(0.5, 2.0)),
        Rotation.random(random_state=number).as_matrix(),
        random.normal(size=3),
    )
    depth = float(random.uniform(0.5, 20.0))
    size = told.scale * float(np.exp(growth * atlas.TOLD_LOG_SCALE))
    axes = random.normal(size=(2, 3))
    way, axis = axes / np.linalg.norm(axes, axis=1, keepdims=True)
    turned = told.rotation @ Rotation.from_rotvec(turn * atlas.TOLD_RAD * axis).as_matrix()
    place = told.translation + shift * atlas.TOLD_DEPTHS * depth * size * way
    return Kept(
        id=number,
        frame_id=number,
        stamp_ns=number,
        submap=0,
        submap_from_cam=np.eye(4),
        world=Sim3(size, turned, place),
        told=told,
        first_unit=1.0,
        depth=depth,
    )


def test_a_keyframe_is_told_again_where_its_place_its_turn_or_its_size_is_noticeably_another():
    shares = [(a, b, c) for a in NEAR_LIMIT for b in NEAR_LIMIT for c in NEAR_LIMIT]
    placed = [kept_after(number, *share) for number, share in enumerate(shares)]
    found = {kept.id for kept in atlas._noticeable(placed)}
    assert found == {number for number, share in enumerate(shares) if max(share) > 1.0}


def test_keyframes_that_nobody_moved_are_not_told_again():
    placed = [kept_after(number, 0.0, 0.0, 0.0) for number in range(3)]
    for kept in placed:
        kept.world = kept.told
    assert atlas._noticeable(placed) == []
    assert atlas._noticeable([]) == []
