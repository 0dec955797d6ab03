# SPDX-License-Identifier: Apache-2.0
"""Faults are drawn from the seed, at the asked rate, and counted."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from worldsystem_core.errors import ConfigError
from worldsystem_sim.config import SimConfig
from worldsystem_sim.faults import Faults, exposures


def test_the_same_seed_plans_the_same_faults():
    settings = {"loss": 0.2, "corrupt": 0.1, "jitter_s": 0.05, "disconnect_every_s": 3.0}
    plans = [[Faults(**settings, seed=seed).of_frame(i) for i in range(200)] for seed in (1, 1, 2)]
    assert plans[0] == plans[1]
    assert plans[0] != plans[2]


def test_faults_come_at_the_asked_rate():
    plan = [
        Faults(loss=0.2, jitter_s=0.05, disconnect_every_s=1.0).of_frame(i) for i in range(4000)
    ]
    assert np.mean([fault.lost for fault in plan]) == pytest.approx(0.2, abs=0.03)
    assert np.mean([fault.delay_s for fault in plan]) == pytest.approx(0.05, abs=0.005)
    disconnects = sum(fault.disconnect for fault in plan)
    assert disconnects == pytest.approx(4000 / 15, abs=48)  # three sigma
    assert not any(fault.corrupted for fault in plan)


def test_no_faults_are_planned_unless_asked_for():
    faults = Faults()
    plan = {faults.of_frame(i) for i in range(500)}
    assert len(plan) == 1
    assert not faults.counts()


def test_damage_spares_the_header_and_repeats():
    message = bytes(range(200)) * 20
    damaged = Faults(seed=3).damaged(message, 7, 21)
    assert damaged != message
    assert damaged[:21] == message[:21]
    assert len(damaged) == len(message)
    assert damaged == Faults(seed=3).damaged(message, 7, 21)


def test_exposure_stays_within_the_asked_stops():
    config = SimConfig(exposure=1.5, duration_s=60.0)
    stops = np.log2(exposures(config))
    assert np.abs(stops).max() <= 1.5
    assert np.ptp(stops) > 1.0
    assert (exposures(replace(config, exposure=0.0)) == 1.0).all()


def test_a_share_above_one_is_refused():
    with pytest.raises(ConfigError, match="loss"):
        SimConfig(loss=1.5)
