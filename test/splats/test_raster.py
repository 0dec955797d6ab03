# SPDX-License-Identifier: Apache-2.0
"""The rasteriser against its plain twin, and against what a picture must be."""

from __future__ import annotations

import numpy as np
from splat_scenes import CAMERA, wall_seen_from

from worldsystem_core.geometry.sim3 import Sim3
from worldsystem_core.splats.discs import discs_from_pointmap
from worldsystem_core.splats.gaussians import Gaussians
from worldsystem_core.splats.raster import draw
from worldsystem_core.splats.raster_reference import draw_pixel


def scattered(count: int = 60) -> Gaussians:
    rng = np.random.default_rng(3)
    rotations = rng.normal(size=(count, 4))
    rotations /= np.linalg.norm(rotations, axis=1, keepdims=True)
    return Gaussians(
        rng.uniform([-1.5, -1, 2], [1.5, 1, 5], (count, 3)).astype(np.float32),
        rng.uniform(0.02, 0.3, (count, 3)).astype(np.float32),
        rotations.astype(np.float32),
        rng.uniform(0, 1, (count, 3)).astype(np.float32),
        rng.uniform(0.2, 1, count).astype(np.float32),
    )


def test_the_picture_is_that_of_the_plain_twin():
    drawn = draw(scattered(), np.eye(4), CAMERA)
    for v, u in ((5, 7), (18, 24), (20, 30), (30, 10), (12, 40)):
        wanted = draw_pixel(scattered(), np.eye(4), CAMERA, u, v)
        found = np.array([*drawn.rgb[v, u], drawn.alpha[v, u]])
        assert np.abs(found - wanted).max() < 2e-3  # float32, and 1/255 ends a tail


def test_a_wall_of_discs_is_closed_and_lies_where_it_is():
    keyframe = wall_seen_from([0, 0, 0], 0)
    discs = discs_from_pointmap(keyframe.pointmap, keyframe.rgb)
    world = discs.transformed(Sim3.from_pose(keyframe.world_from_cam))
    drawn = draw(world, keyframe.world_from_cam, CAMERA)
    inside = (slice(2, -2), slice(2, -2))
    assert drawn.alpha[inside].min() > 0.85
    assert np.abs(drawn.depth[inside] - 3.0).max() < 0.02
    error = drawn.over(np.zeros(3, np.float32))[inside].astype(float) - keyframe.rgb[inside]
    assert np.abs(error).mean() < 12  # the pattern's waves are six pixels wide


def test_what_is_behind_or_beside_the_camera_is_not_drawn():
    some = scattered()
    behind = Gaussians(
        some.means * np.float32([1, 1, -1]), some.scales, some.rotations, some.rgb, some.opacities
    )
    assert draw(behind, np.eye(4), CAMERA).alpha.max() == 0
    assert draw(Gaussians.empty(), np.eye(4), CAMERA).alpha.max() == 0


def test_moving_world_and_camera_together_changes_nothing():
    some = scattered()
    move = Sim3.from_pose(wall_seen_from([1, 2, 3], 0).world_from_cam)
    here = draw(some, np.eye(4), CAMERA)
    there = draw(some.transformed(move), move.pose, CAMERA)
    assert np.abs(here.rgb - there.rgb).max() < 2e-3
