# SPDX-License-Identifier: Apache-2.0
"""What several sources, and sources that come and go, say together of the map's size."""

from __future__ import annotations

import numpy as np
import pytest
from test_scale_root import HELD_UP, STEP_NS, Flight, fix_at, metric_pose

from worldsystem_core.geometry.se3 import inverse, look_at
from worldsystem_core.geometry.sim3 import Sim3
from worldsystem_core.telemetry import OdometrySample
from worldsystem_slam3r.scale.enu import ENU
from worldsystem_slam3r.scale.metric import MetricScale

UP = np.array([0.0, 0.0, 1.0])


def test_gps_that_holds_the_map_leaves_it_the_size_that_the_phone_tells():
    """A round of 25 m; GPS of 3 m is off by a tenth of that, and the phone by nothing."""
    flight = Flight()
    for i in range(200):
        angle = i / 15.0
        ahead = np.array([np.sin(angle), np.cos(angle), 0.0])
        place = 25.0 * ahead + (20.0 + 2.0 * np.sin(angle / 2.0)) * UP
        truth = look_at(place, place + ahead, UP)
        stamp_ns = i * STEP_NS
        flight.metric.observe(OdometrySample(stamp_ns=stamp_ns, position_m=tuple(place)))
        flight.metric.observe(fix_at(place * [1.1, 1.1, 1.0], stamp_ns, 3.0))
        scene = inverse(flight.poses[0] if flight.poses else truth) @ truth
        scene[:3, 3] /= 40.0
        flight.see(truth, scene)
    assert flight.atlas.axes == ENU
    assert len(flight.atlas.graph.anchors) >= 3
    sizes = [kept.world.scale for kept in flight.atlas.keyframes.values()]
    assert np.mean(sizes) == pytest.approx(40.0, rel=0.03)


def told_sigma(pause_s: float) -> float:
    """Of the scale, by two spells of 20 s with five fixes a second and a pause in between."""
    rng = np.random.default_rng(0)
    metric = MetricScale({0: Sim3.identity()}.get)
    for i in range(200):
        t = i / 5.0
        stamp_ns = round((1.0 + t + (pause_s if i >= 100 else 0.0)) * 1e9)
        place = np.array([40 * np.sin(t / 8), 40 * np.cos(t / 8), 20 + 5 * np.sin(t / 5)])
        metric.observe(fix_at(place + rng.normal(size=3), stamp_ns, 1.0))
        metric_pose(metric, stamp_ns, np.array([place[0], -place[2], place[1]]) / 10.0)
    fit = metric.fit(HELD_UP, 0.1)
    assert fit is not None
    return fit.scale_sigma


def test_a_pause_between_two_spells_of_gps_makes_the_size_no_surer():
    assert told_sigma(600.0) > 0.7 * told_sigma(0.0)
