# SPDX-License-Identifier: Apache-2.0
"""Splats that a back-end makes itself lie on the surface that its keyframes show, in any unit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from drifting_backend import DriftingBackend, film, ring_poses
from test_scale_metric import fixes

from worldsystem_core.reconstruction import Event, Keyframe, NewKeyframe, ScaleState
from worldsystem_core.splats.discs import discs_from_pointmap
from worldsystem_slam3r.config import Slam3rConfig
from worldsystem_slam3r.session.backend import GraphBackend
from worldsystem_slam3r.session.restartable import RenewableBackend

EVERY_PX = 8


class WithSplats(DriftingBackend):
    """Tells a disc on every n-th pixel's point, as a network with a head for splats would."""

    def feed(self, frame) -> list[Event]:
        return [
            NewKeyframe(replace(event.keyframe, gaussians=discs_on(event.keyframe)))
            if isinstance(event, NewKeyframe)
            else event
            for event in super().feed(frame)
        ]


def discs_on(keyframe: Keyframe):
    thinned = (slice(None, None, EVERY_PX),) * 2
    points = np.ascontiguousarray(keyframe.pointmap[thinned])
    return discs_from_pointmap(points, keyframe.rgb[thinned], keyframe.confidence[thinned])


def assert_splats_lie_on_their_points(keyframe: Keyframe) -> None:
    """As far as single precision goes: those made of the points as they were told."""
    on_points = discs_on(keyframe)
    assert keyframe.gaussians is not None
    assert len(keyframe.gaussians) == len(on_points) > 100
    np.testing.assert_allclose(keyframe.gaussians.means, on_points.means, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(keyframe.gaussians.scales, on_points.scales, rtol=1e-3)
    turned = np.abs((keyframe.gaussians.rotations * on_points.rotations).sum(axis=1))
    np.testing.assert_allclose(turned, 1.0, atol=1e-4)


def told(events: list[Event]) -> list[Keyframe]:
    return [event.keyframe for event in events if isinstance(event, NewKeyframe)]


def test_splats_are_in_metres_once_the_world_is():
    walk = film(ring_poses(17)[:12], period_ns=500_000_000)
    graph = GraphBackend(RenewableBackend(WithSplats([walk], unit=0.4), None), Slam3rConfig())
    measured = sorted(fixes(walk, 0.5), key=lambda fix: fix.stamp_ns)
    events: list[Event] = []
    for frame in walk.frames:
        while measured and measured[0].stamp_ns <= frame.stamp_ns + 5000:
            graph.observe(measured.pop(0))
        events += graph.feed(frame)
    metric = [keyframe for keyframe in told(events) if keyframe.scale is ScaleState.METRIC]
    assert len(metric) >= 3
    for keyframe in told(events):
        assert_splats_lie_on_their_points(keyframe)


def test_splats_of_a_sub_map_that_was_merged_are_in_the_unit_of_the_world():
    once_round = ring_poses(17)
    ring = film([*once_round[:-1], *once_round[:4]])
    backend = WithSplats([ring], lost=set(range(6, 10)))
    config = Slam3rConfig(submap_after_s=0.2)
    graph = GraphBackend(RenewableBackend(backend, None), config)
    events = [event for frame in ring.frames for event in graph.feed(frame)] + graph.finish()
    assert graph.counts.merged == 1
    assert len({keyframe.submap for keyframe in told(events)}) == 2
    for keyframe in told(events):
        assert_splats_lie_on_their_points(keyframe)
