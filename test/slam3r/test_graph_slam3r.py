# SPDX-License-Identifier: Apache-2.0
"""The graph around the slam3r back-end: its own retrieval is asked, its scenes are sub-maps."""

from __future__ import annotations

import filmed_room
import pytest
import torch
from true_networks import PX, TrueNetworks

from worldsystem_core.reconstruction import NewKeyframe
from worldsystem_slam3r.config import Slam3rConfig
from worldsystem_slam3r.session.backend import GraphBackend
from worldsystem_slam3r.session.restartable import RenewableBackend
from worldsystem_slam3r.slam3r.backend import Slam3rBackend

torch.set_num_threads(1)

CAMERA = filmed_room.camera(320, 240)
AWAY = 26


class Spied(Slam3rBackend):
    """Remembers for which key frames its retrieval was asked."""

    asked: tuple[int, ...] = ()

    def similar_keyframes(self, keyframe_id: int, count: int) -> list[int]:
        self.asked += (keyframe_id,)
        return super().similar_keyframes(keyframe_id, count)


@pytest.fixture(scope="module")
def run():
    """A camera that slides away and comes back over the same way: the back-end and what it told."""
    networks = TrueNetworks()
    poses = filmed_room.sideways_poses(AWAY, step=0.09)
    frames = networks.film([*poses, *poses[-2::-1]], CAMERA)
    inner = Spied(networks, Slam3rConfig(backend="slam3r"), picture_px=PX)
    graph = GraphBackend(RenewableBackend(inner, None), Slam3rConfig(backend="slam3r"))
    events = [event for frame in frames for event in graph.feed(frame)] + graph.finish()
    return inner, [event.keyframe for event in events if isinstance(event, NewKeyframe)]


def test_the_graph_asks_the_networks_for_places(run):
    inner, keyframes = run
    assert len(keyframes) >= 6
    assert set(inner.asked) >= {keyframe.id for keyframe in keyframes[5:]}
    assert {keyframe.submap for keyframe in keyframes} == {0}


def test_the_networks_retrieval_finds_where_the_camera_was_before(run):
    inner, keyframes = run
    frame_of = {keyframe.id: keyframe.frame_id for keyframe in keyframes}
    newest = max(frame_of)
    liked = inner.similar_keyframes(newest, 3)
    assert newest not in liked
    assert 1 <= len(liked) <= 3
    # on the way back frame 2 (AWAY - 1) - i shows what frame i showed
    mirrored = 2 * (AWAY - 1) - frame_of[newest]
    assert min(abs(frame_of[key] - mirrored) for key in liked) <= 6
    assert inner.similar_keyframes(10_000, 3) == []
