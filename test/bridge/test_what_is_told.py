# SPDX-License-Identifier: Apache-2.0
"""What consumers on RabbitMQ are told, and what they are not told again."""

from __future__ import annotations

import json

import msgpack
import numpy as np
from plain_keyframe import plain_keyframe

from worldsystem_bridge import bodies, exchanges
from worldsystem_bridge.config import BridgeConfig
from worldsystem_bridge.outbox import Outbox
from worldsystem_bridge.translation import Translation
from worldsystem_core.ledger import StageLedger
from worldsystem_core.objects import Track, TrackFrame, TrackState
from worldsystem_core.reconstruction import MovedKeyframes, ScaleState
from worldsystem_core.surface import MeshBlock, MeshDelta


def taken(outbox: Outbox) -> list[exchanges.Message]:
    """What waits, made."""
    made = []
    while (posting := outbox.get(0.0)) is not None:
        made += posting.made()
        outbox.sent(posting)
    return made


def track(id: int, area_px: int, state: TrackState) -> Track:
    return Track(
        id=id,
        label="red",
        score=1.0,
        box_px=(0, 0, 1, 1),
        area_px=area_px,
        age_frames=1,
        state=state,
    )


def test_a_frame_names_the_objects_that_are_seen_in_it_alone() -> None:
    tracks = (
        track(1, 12, TrackState.CONFIRMED),
        track(2, 0, TrackState.OCCLUDED),
        track(3, 0, TrackState.LOST),
    )
    labels = np.zeros((6, 8), np.uint16)
    frame = TrackFrame(frame_id=4, keyframe_id=1, stamp_ns=10**18, tracks=tracks, labels=labels)
    body = json.loads(bodies.processed_frame_message(frame).body)
    assert [thing["id"] for thing in body["objects"]] == [1]


def test_the_whole_surface_is_told_again_where_deltas_are_not() -> None:
    outbox = Outbox(100, StageLedger("bridge"))
    translation = Translation(BridgeConfig(mesh_delta=False, mesh_full_s=1e-6), outbox)
    block = MeshBlock(
        index=(0, 0, 0),
        version=1,
        vertices=np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0]], np.float32),
        colours=np.full((3, 3), 9, np.uint8),
        faces=np.array([[0, 1, 2]], np.int32),
    )
    delta = MeshDelta(
        stamp_ns=10**18,
        sequence=1,
        base_sequence=0,
        block_size=1.0,
        blocks=(block,),
        removed=(),
        total_vertices=3,
        total_faces=1,
        keyframe_count=1,
        capture_ns=10**18,
    )
    translation.mesh(delta)
    assert [message.routing_key for message in taken(outbox)] == ["mesh.full"], "nobody got it"
    translation.tell_again()
    assert [message.routing_key for message in taken(outbox)] == ["mesh.full"]


def test_where_all_keyframes_lie_is_no_news_of_those_that_have_not_moved() -> None:
    """Before all are told again for a stage begun anew, the reconstruction says where they lie."""
    outbox = Outbox(100, StageLedger("bridge"))
    translation = Translation(BridgeConfig(), outbox)
    for number in range(12):
        translation.keyframe(plain_keyframe(number))
    taken(outbox)
    sizes = dict.fromkeys(range(12), 1.0)
    there = {number: np.eye(4) for number in range(12)}
    translation.keyframe(MovedKeyframes(there, sizes, ScaleState.SCENE))
    assert taken(outbox) == []
    there[3] = np.eye(4)
    there[3][0, 3] = 5.0
    translation.keyframe(MovedKeyframes(there, sizes | {7: 2.0}, ScaleState.SCENE))
    told = [msgpack.unpackb(message.body) for message in taken(outbox)]
    assert [(body["type"], body["keyframe_id"]) for body in told] == [
        ("keyframe.update", 3),
        ("keyframe.update", 7),
    ]
