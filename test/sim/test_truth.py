# SPDX-License-Identifier: Apache-2.0
"""The ground truth that a flight leaves, without a flight."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np

from worldsystem_core.trajectory import StampedPoses, read_tum
from worldsystem_sim.config import SimConfig
from worldsystem_sim.flight import Flight, flight
from worldsystem_sim.scene import Scene
from worldsystem_sim.truth import TRAJECTORY_FILE, FrameRecord, Truth, write_truth

LAPS = 40


def test_a_flight_of_many_laps_works_out_the_poses_of_one(
    tmp_path: Path, scene: Scene, monkeypatch
):
    config = SimConfig(seed=1, duration_s=2.0, fps=5.0, loop=True)
    path = flight(config.flight, config.seed, config.duration_s, scene)
    lap = path.poses(np.arange(config.frame_count) / config.fps)
    worked_out: list[float] = []
    plain = Flight.world_from_cam

    def noted(self: Flight, t_s: float):
        worked_out.append(t_s)
        return plain(self, t_s)

    monkeypatch.setattr(Flight, "world_from_cam", noted)
    frames = range(LAPS * config.frame_count + 3)
    records = [FrameRecord(number, 10**9 + number * 200_000_000, "sent") for number in frames]
    write_truth(tmp_path, config, records, Counter())
    assert len(worked_out) == config.frame_count
    written = read_tum(tmp_path / TRAJECTORY_FILE)
    assert written.stamps_ns.tolist() == [record.stamp_ns for record in records]
    expected = lap[[number % config.frame_count for number in frames]]
    np.testing.assert_allclose(written.world_from_cam, expected, atol=1e-6)


def test_what_the_camera_saw_in_many_laps_is_drawn_and_held_once(scene: Scene, monkeypatch):
    config = SimConfig(seed=1, duration_s=2.0, fps=5.0, width=64, height=36, loop=True)
    path = flight(config.flight, config.seed, config.duration_s, scene)
    lap = path.poses(np.arange(config.frame_count) / config.fps)

    def truth_of(laps: int) -> Truth:
        frames = range(laps * config.frame_count)
        stamps = np.array([number * 200_000_000 for number in frames], dtype=np.int64)
        poses = StampedPoses(stamps, lap[[number % config.frame_count for number in frames]])
        records = tuple(FrameRecord(number, int(stamps[number]), "sent") for number in frames)
        return Truth(config, poses, records)

    drawn: list[int] = []
    plain = Truth.view

    def noted(self: Truth, index: int):
        drawn.append(index)
        return plain(self, index)

    monkeypatch.setattr(Truth, "view", noted)
    of_one = truth_of(1).visible_points(every_n_frames=5)
    drawn.clear()
    of_many = truth_of(LAPS).visible_points(every_n_frames=5)
    assert drawn == [0, 5]
    assert len(of_one)
    np.testing.assert_array_equal(of_many, of_one)
