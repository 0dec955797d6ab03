# SPDX-License-Identifier: Apache-2.0
"""Pictures between those that Depth Anything 3 looks at: where they lie, and that none is held."""

from __future__ import annotations

import itertools
import weakref
from dataclasses import replace

import numpy as np
from test_da3_backend import run
from tiny_da3 import TruthfulNetwork, frame

from worldsystem_core.reconstruction import NewKeyframe, Pose
from worldsystem_slam3r.config import Slam3rConfig
from worldsystem_slam3r.da3.backend import Da3Backend
from worldsystem_slam3r.session.backend import GraphBackend
from worldsystem_slam3r.session.restartable import RenewableBackend


def test_pictures_before_the_first_of_a_new_submap_are_not_placed_by_the_old_one():
    network = TruthfulNetwork()
    truthful = network._view

    def broken(number, window_from_world):
        view = truthful(number, window_from_world)
        if len(network.calls) >= 3:  # every depth is another one, from one call to the next
            rng = np.random.default_rng(number + len(network.calls))
            view.depth[:] = rng.uniform(0.5, 5, view.depth.shape)
        return view

    network._view = broken
    _, events = run(network, 31, da3_window=4, da3_overlap=2, keyframe_stride=3)
    poses = {event.frame_id: event for event in events if isinstance(event, Pose)}
    keyframes = [event.keyframe for event in events if isinstance(event, NewKeyframe)]
    begun = [
        now.frame_id for before, now in itertools.pairwise(keyframes) if now.submap != before.submap
    ]
    assert begun
    for first in begun:
        for number in (first - 2, first - 1):
            assert poses[number].submap == poses[first].submap
            np.testing.assert_array_equal(poses[number].world_from_cam, poses[first].world_from_cam)


def test_pictures_that_no_window_looks_at_are_let_go_at_once():
    config = Slam3rConfig(
        backend="da3", synchronous=True, da3_window=4, da3_overlap=2, keyframe_stride=10
    )
    backend = Da3Backend(TruthfulNetwork(), config)
    pictures = []
    for n in range(25):
        seen = frame(n)
        pictures.append(weakref.ref(seen.rgb))
        backend.feed(seen)
    del seen
    assert [n for n, picture in enumerate(pictures) if picture() is not None] == [0, 10, 20]


def test_a_window_that_takes_longer_than_a_loss_may_is_waited_for_after_a_change_of_size():
    """Eight pictures take 3.5 s to come, and a sub-map is begun when the camera is lost for 3."""
    config = Slam3rConfig(
        backend="da3", synchronous=True, keyframe_stride=5, da3_window=8, replace_views=False
    )
    backend = RenewableBackend(Da3Backend(TruthfulNetwork(), config), None)
    graph = GraphBackend(backend, config)
    frames = [frame(n) for n in range(130)]
    turned = [replace(each, rgb=np.swapaxes(each.rgb, 0, 1).copy()) for each in frames[58:]]
    events = [event for each in [*frames[:58], *turned] for event in graph.feed(each)]
    events += graph.finish()
    poses = [event for event in events if isinstance(event, Pose)]
    assert sorted(pose.frame_id for pose in poses) == list(range(130))
    assert graph.counts.submaps == 2
