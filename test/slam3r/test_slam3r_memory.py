# SPDX-License-Identifier: Apache-2.0
"""However long the video, the back-end keeps no more than its settings allow."""

from __future__ import annotations

import gc
import mmap
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from golden import golden_folder, tiny_networks

from worldsystem_core.frames import Camera
from worldsystem_core.reconstruction import Keyframe
from worldsystem_slam3r.config import Slam3rConfig
from worldsystem_slam3r.slam3r.backend import Slam3rBackend
from worldsystem_slam3r.slam3r.cloud import MOVABLE_KEYFRAMES, BoundedCloud
from worldsystem_slam3r.slam3r.shots import Shot
from worldsystem_slam3r.slam3r.views import View

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
from slam3r_memory import (
    EVERYTHING_COUNTS,
    PX,
    endless_video,
    resident_mb,
    slope_mb_per_1000,
    stream,
)

torch.set_num_threads(1)

SMALL = {"buffer_frames": 10, "cloud_points": 20_000}


def held_by(kind: type) -> int:
    return sum(issubclass(type(item), kind) for item in gc.get_objects())


def test_the_number_of_frames_and_arrays_kept_does_not_grow():
    config = Slam3rConfig(**{"backend": "slam3r", **EVERYTHING_COUNTS, **SMALL})
    backend = Slam3rBackend(tiny_networks(), config, picture_px=PX)
    kept: list[Counter[str]] = []
    for frame in endless_video(360):
        backend.feed(frame)
        if frame.id in (119, 239, 359):
            gc.collect()
            kept.append(
                Counter(views=held_by(View), shots=held_by(Shot), tensors=held_by(torch.Tensor))
            )
    most = config.buffer_frames + config.stride_max + 12
    assert 10 < kept[0]["views"] <= most
    assert 2 < kept[0]["shots"] <= most
    assert kept[2]["views"] <= kept[0]["views"] + 4
    assert kept[2]["tensors"] <= kept[0]["tensors"] + 40


def test_a_thousand_frames_leave_memory_where_it_was():
    golden_folder()
    memory, _ = stream(tiny_networks(), 1000, warm_up=400, **SMALL)
    # Pages that the allocator happens to take weigh more over 600 frames than over 10,000.
    assert slope_mb_per_1000(memory) < 1.0


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_ten_thousand_frames_cost_less_than_half_a_megabyte_per_thousand():
    golden_folder()
    memory, seconds = stream(tiny_networks(), 10_000, warm_up=1000)
    assert slope_mb_per_1000(memory) < 0.5
    assert np.median(seconds[1000:1500]) / np.median(seconds[-500:]) > 0.8


def a_keyframe(id: int, points: int) -> Keyframe:
    camera = Camera.from_horizontal_fov(40, 40, 1.0)
    depth = np.full((40, 40), np.nan, np.float32)
    depth.reshape(-1)[:points] = 2.0
    pointmap = np.stack([0 * depth, 0 * depth, depth], axis=-1)
    pose = np.eye(4)
    pose[0, 3] = id
    return Keyframe(
        id=id,
        frame_id=id,
        stamp_ns=id,
        world_from_cam=pose,
        camera=camera,
        pointmap=pointmap,
        confidence=np.isfinite(depth).astype(np.float32),
        rgb=np.full((40, 40, 3), id % 256, np.uint8),
    )


def test_the_cloud_never_exceeds_its_bound_and_samples_all_keyframes_alike():
    cloud = BoundedCloud(5000)
    for key in range(64):
        cloud.add(a_keyframe(key, 1600))
        assert len(cloud) == len(cloud.points().points) <= 5000
    assert len(cloud) > 1500
    per_keyframe = np.bincount(cloud.points().rgb[:, 0], minlength=64)
    assert per_keyframe.min() > 0
    assert per_keyframe.max() < 4 * per_keyframe.mean()


def test_points_of_the_cloud_move_and_go_with_their_keyframe():
    cloud = BoundedCloud(5000)
    for key in range(3):
        cloud.add(a_keyframe(key, 100))
    cloud.add(a_keyframe(1, 50))
    assert len(cloud) == 250
    moved = np.eye(4)
    moved[1, 3] = 7.0
    cloud.move({1: moved, 99: moved})
    np.testing.assert_allclose(
        np.unique(cloud.points().points, axis=0), [[0, 0, 2], [0, 7, 2], [2, 0, 2]]
    )
    cloud.remove((0, 2, 77))
    assert len(cloud) == 50
    cloud.remove((1,))
    assert cloud.points().points.shape == (0, 3)


def test_a_keyframe_without_points_changes_no_cloud():
    cloud = BoundedCloud(5000)
    cloud.add(a_keyframe(0, 0))
    assert len(cloud) == 0


def test_memory_is_told_in_megabytes():
    before = resident_mb()
    with mmap.mmap(-1, 40_000_000) as block:  # an array may get memory that was freed before
        for _ in range(40):
            block.write(bytes(1_000_000))
        assert 30 < resident_mb() - before < 60


def test_thousands_of_keyframes_settle_where_they_were():
    cloud = BoundedCloud(100_000)
    for key in range(4500):
        cloud.add(a_keyframe(key, 3))
    assert len(cloud._blocks) <= 2 * MOVABLE_KEYFRAMES + 1
    assert len(cloud) == 3 * 4500
    x = np.sort(cloud.points().points[:, 0])
    np.testing.assert_allclose(x, np.repeat(np.arange(4500), 3))
    moved = np.eye(4)
    cloud.move({0: moved, 4499: moved})
    assert np.count_nonzero(cloud.points().points[:, 0] == 0) == 6
