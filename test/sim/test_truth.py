# SPDX-License-Identifier: Apache-2.0
"""The ground truth that a flight leaves, without a flight."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np

from worldsystem_core.trajectory import read_tum
from worldsystem_sim.config import SimConfig
from worldsystem_sim.flight import Flight, flight
from worldsystem_sim.scene import Scene
from worldsystem_sim.truth import TRAJECTORY_FILE, FrameRecord, write_truth

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
