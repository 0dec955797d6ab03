# SPDX-License-Identifier: Apache-2.0
"""Depths leave as 16-bit pictures whose unit fits the scene, whatever its scale."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from worldsystem_storage.export.cameras import export_nerfstudio
from worldsystem_storage.export.recorded import RecordedKeyframe, RecordedRun, Recording

HEIGHT, WIDTH = 12, 16


def keyframe(number: int, depth: np.ndarray) -> RecordedKeyframe:
    v, u = np.mgrid[:HEIGHT, :WIDTH]
    rays = np.stack([(u - 7.5) / 16, (v - 5.5) / 16, np.ones(u.shape)], axis=-1)
    return RecordedKeyframe(
        id=number,
        stamp_ns=number,
        world_from_cam=np.eye(4),
        K=np.array([[16.0, 0.0, 7.5], [0.0, 16.0, 5.5], [0.0, 0.0, 1.0]]),
        pointmap=(rays * depth[..., None]).astype(np.float32),
        confidence=np.ones((HEIGHT, WIDTH), np.float32),
        rgb=np.full((HEIGHT, WIDTH, 3), 90, np.uint8),
    )


def exported(folder: Path, depths: list[np.ndarray]) -> tuple[float, list[np.ndarray]]:
    """The unit, and the depths as a reader of the files has them [world units]; 0 = unknown."""
    keyframes = [keyframe(n, depth) for n, depth in enumerate(depths)]
    run = RecordedRun(folder, Recording(keyframes))
    document = json.loads(export_nerfstudio(run, folder / "out").read_text())
    unit = document["depth_unit_scale_factor"]
    found = []
    for frame in document["frames"]:
        steps = cv2.imread(str(folder / "out" / frame["depth_file_path"]), cv2.IMREAD_UNCHANGED)
        assert steps.dtype == np.uint16
        found.append(steps * unit)
    return unit, found


def slope(near: float, far: float) -> np.ndarray:
    return np.linspace(near, far, HEIGHT * WIDTH).reshape(HEIGHT, WIDTH)


@pytest.mark.parametrize("scale", [0.01, 1.0, 40.0, 5000.0])
def test_every_depth_comes_out_again_at_any_scale_of_the_scene(tmp_path, scale):
    depths = [scale * slope(0.5, 2.0), scale * slope(1.0, 4.0)]
    unit, found = exported(tmp_path, depths)
    for depth, read in zip(depths, found, strict=True):
        np.testing.assert_allclose(read, depth, atol=0.51 * unit, rtol=1e-6)
    assert unit <= scale / 1000


def test_a_room_has_the_unit_that_nerfstudio_takes_by_itself(tmp_path):
    unit, _ = exported(tmp_path, [slope(0.5, 65.5)])
    assert unit == 0.001


def test_a_point_at_the_horizon_is_unknown_and_does_not_make_the_others_coarse(tmp_path):
    depth = slope(1.0, 3.0)
    depth[0, :3] = 1e7, np.inf, np.nan
    depth[1, 0] = -2.0
    unit, (read,) = exported(tmp_path, [depth])
    assert unit <= 3.0 / 1000, "a thousandth of the farthest of the others"
    assert not read[0, :3].any()
    assert read[1, 0] == 0
    np.testing.assert_allclose(read[2:], depth[2:], atol=0.51 * unit)
