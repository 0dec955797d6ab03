# SPDX-License-Identifier: Apache-2.0
"""Messages have the bodies that the consumers deployed before expect."""

from __future__ import annotations

import base64
import json
from dataclasses import replace

import DracoPy
import msgpack
import numpy as np
import pytest

from worldsystem_bridge import bodies, exchanges
from worldsystem_bridge.broker import place_of
from worldsystem_bridge.config import BridgeConfig
from worldsystem_bridge.mesh_bodies import Regions, mesh_messages
from worldsystem_bridge.outbox import Outbox
from worldsystem_bridge.translation import Translation
from worldsystem_core.errors import ConfigError
from worldsystem_core.frames import Camera
from worldsystem_core.ledger import StageLedger
from worldsystem_core.objects import MapObject, MapObjects, Track, TrackFrame, TrackState
from worldsystem_core.reconstruction import (
    Keyframe,
    MovedKeyframes,
    NewKeyframe,
    Pose,
    RemovedKeyframes,
    TrackingState,
)
from worldsystem_core.surface import MeshBlock, MeshDelta

STAMP_NS = 1_700_000_000_500_000_000


def keyframe(id: int = 7, stamp_ns: int = STAMP_NS) -> Keyframe:
    """Four points a metre ahead, one of them unknown; the camera stands at x = 2."""
    pointmap = np.array([[[0, 0, 1], [1, 0, 1]], [[0, 1, 1], [np.nan] * 3]], np.float32)
    pose = np.eye(4)
    pose[0, 3] = 2.0
    return Keyframe(
        id=id,
        frame_id=70 + id,
        stamp_ns=stamp_ns,
        world_from_cam=pose,
        camera=Camera.from_K(np.eye(3), 2, 2),
        pointmap=pointmap,
        confidence=np.ones((2, 2), np.float32),
        rgb=np.arange(12, dtype=np.uint8).reshape(2, 2, 3),
    )


def pose(frame_id: int, stamp_ns: int, state: TrackingState = TrackingState.TRACKED) -> Pose:
    return Pose(
        frame_id=frame_id, stamp_ns=stamp_ns, world_from_cam=np.eye(4), confidence=1.0, state=state
    )


def block(x: int) -> MeshBlock:
    return MeshBlock(
        index=(x, 0, 0),
        version=1,
        vertices=np.array([[x, 0, 0], [x + 1, 0, 0], [x, 1, 0]], np.float32),
        colours=np.full((3, 3), 9, np.uint8),
        faces=np.array([[0, 1, 2]], np.int32),
    )


def delta(*blocks: MeshBlock, removed: tuple[tuple[int, int, int], ...] = ()) -> MeshDelta:
    return MeshDelta(
        stamp_ns=STAMP_NS,
        sequence=1,
        base_sequence=0,
        block_size=1.0,
        blocks=blocks,
        removed=removed,
        total_vertices=3,
        total_faces=1,
        keyframe_count=1,
        capture_ns=STAMP_NS,
    )


class Told:
    """A translation whose messages are made at once, as with a broker that is always there."""

    def __init__(self, **settings: object) -> None:
        self.outbox = Outbox(100, StageLedger("bridge"))
        self.translation = Translation(BridgeConfig(**settings), self.outbox)  # type: ignore[arg-type]

    def messages(self) -> list[exchanges.Message]:
        made = []
        while (posting := self.outbox.get(0.0)) is not None:
            made += posting.made()
            self.outbox.sent(posting)
        return made

    def bodies(self, exchange: exchanges.Exchange) -> list[dict]:
        return [opened(m) for m in self.messages() if m.exchange == exchange.name]


def opened(message: exchanges.Message) -> dict:
    if message.content_type == bodies.JSON:
        return json.loads(message.body)
    return msgpack.unpackb(message.body)


def test_a_new_keyframe_is_told_with_pose_count_and_box_of_its_known_world_points() -> None:
    told = Told()
    told.translation.keyframe(NewKeyframe(keyframe()))
    message = told.messages()[0]
    body = opened(message)
    assert (message.exchange, message.routing_key) == ("slam3r_keyframe_exchange", "keyframe.new")
    assert body["keyframe_id"] == 7
    assert body["timestamp_ns"] == STAMP_NS
    assert np.array(body["pose_matrix"]).shape == (4, 4)
    assert body["point_count"] == 3
    assert body["bbox"] == [[2, 0, 1], [3, 1, 1]]
    assert body["shm_key"] == ""


def test_a_moved_keyframe_carries_its_points_along_in_their_new_size() -> None:
    told = Told()
    told.translation.keyframe(NewKeyframe(keyframe()))
    told.messages()
    there = np.eye(4)
    told.translation.keyframe(MovedKeyframes({7: there}, {7: 2.0}))
    (body,) = told.bodies(exchanges.KEYFRAMES)
    assert body["type"] == "keyframe.update"
    assert body["bbox"] == [[0, 0, 2], [2, 2, 2]]


def test_a_keyframe_long_gone_is_updated_with_its_pose_alone() -> None:
    told = Told()
    for number in range(12):
        told.translation.keyframe(NewKeyframe(keyframe(number)))
    told.messages()
    told.translation.keyframe(MovedKeyframes({0: np.eye(4)}))
    (body,) = told.bodies(exchanges.KEYFRAMES)
    assert body["point_count"] == 0


def test_a_removed_keyframe_is_told() -> None:
    told = Told()
    told.translation.keyframe(RemovedKeyframes((3, 4)))
    sent = told.messages()
    assert [m.routing_key for m in sent] == ["keyframe.remove"] * 2
    assert [opened(m)["keyframe_id"] for m in sent] == [3, 4]


def test_all_that_moved_at_once_is_told_though_fewer_postings_may_wait() -> None:
    told = Told()
    told.translation.keyframe(NewKeyframe(keyframe()))
    told.translation.keyframe(MovedKeyframes({number: np.eye(4) for number in range(250)}))
    new, *moved = told.bodies(exchanges.KEYFRAMES)
    assert new["type"] == "keyframe.new"
    assert [body["keyframe_id"] for body in moved] == list(range(250))


def test_poses_and_frames_make_way_for_keyframes_and_the_surface() -> None:
    told = Told()
    told.translation.keyframe(NewKeyframe(keyframe()))
    told.translation.mesh(delta(block(0)))
    for number in range(300):
        told.translation.pose(pose(number, STAMP_NS + number))
    sent = told.messages()
    assert [m.exchange for m in sent[:4]] == [
        "slam3r_keyframe_exchange",
        "slam3r_pointcloud_exchange",
        "mesh_update_exchange",
        "mesh_stream_exchange",
    ]
    poses = [opened(m)["timestamp_ns"] for m in sent if m.exchange == "slam3r_pose_exchange"]
    assert poses == [STAMP_NS + number for number in range(251, 300)], "the newest, in their order"


def results_of(told: Told) -> list[tuple[int, bool]]:
    return [(r["frame_number"], r["is_keyframe"]) for r in told.bodies(exchanges.SLAM_RESULTS)]


def test_a_frame_is_a_keyframe_when_one_of_its_stamp_comes_within_a_second_of_video() -> None:
    told = Told()
    for number in range(1, 5):
        told.translation.pose(pose(number, STAMP_NS + number))
    told.translation.keyframe(NewKeyframe(keyframe(stamp_ns=STAMP_NS + 2)))
    assert results_of(told) == [(1, False), (2, True)], "those before are known, too"
    told.translation.pose(pose(5, STAMP_NS + 1_000_000_003))
    told.translation.pose(pose(6, STAMP_NS + 9_000_000_000, TrackingState.LOST))
    assert results_of(told) == [(3, False), (4, False), (5, False)]


def test_results_come_at_once_when_nobody_waits_for_keyframes() -> None:
    told = Told(results_wait_s=0.0)
    told.translation.pose(pose(1, STAMP_NS))
    told.translation.pose(pose(2, STAMP_NS + 1))
    told.translation.flush()
    results = told.bodies(exchanges.SLAM_RESULTS)
    assert [body["timestamp"] for body in results] == [1_700_000_000.5] * 2


def test_results_wait_in_bounded_number_whatever_the_stamps_are() -> None:
    told = Told(results_wait_s=60.0)
    for number in range(150):
        told.translation.pose(pose(number, STAMP_NS))
    assert results_of(told) == [(number, False) for number in range(50)]


def test_the_mesh_delta_is_draco_in_base64_and_goes_to_the_stream_too() -> None:
    told = Told()
    told.translation.mesh(delta(block(0), block(9)))
    sent = told.messages()
    assert [(m.exchange, m.routing_key) for m in sent] == [
        ("mesh_update_exchange", "mesh.delta"),
        ("mesh_stream_exchange", ""),
    ]
    body = opened(sent[0])
    mesh = DracoPy.decode(base64.b64decode(body["data"]))
    assert (body["format"], body["compression"]) == ("ply_compressed", "draco")
    assert body["regions_updated"] == ["0_0_0", "1_0_0"]
    assert (body["vertex_count"], body["face_count"]) == (6, 2)
    assert len(mesh.faces) == 2
    assert np.ptp(mesh.points[:, 0]) == pytest.approx(10, abs=1e-3)


def test_a_region_is_sent_whole_and_empty_once_its_blocks_are_gone() -> None:
    told = Told(mesh_delta=False, mesh_regions=True)
    told.translation.mesh(delta(block(0)))
    told.translation.mesh(delta(block(1)))
    told.translation.mesh(delta(removed=((0, 0, 0), (1, 0, 0))))
    sent = told.messages()
    assert {m.routing_key for m in sent} == {"mesh.region.0_0_0"}
    assert [opened(m)["face_count"] for m in sent] == [1, 2, 0]


def test_what_may_be_lost_with_the_broker_away_is_told_whole_and_once() -> None:
    told = Told()
    for x in (0, 1, 9):
        told.translation.mesh(delta(block(x)))
    told.translation.mesh(delta(removed=((9, 0, 0),)))
    told.messages()  # nobody got them
    told.translation.tell_again()
    sent = told.messages()
    assert [(m.exchange, m.routing_key) for m in sent] == [
        ("mesh_update_exchange", "mesh.full"),
        ("mesh_stream_exchange", ""),
    ]
    full, streamed = map(opened, sent)
    assert (full["type"], streamed["type"]) == ("mesh.full", "mesh.delta")
    assert full | {"type": ""} == streamed | {"type": ""}
    assert full["face_count"] == len(DracoPy.decode(base64.b64decode(full["data"])).faces) == 2
    assert full["regions_updated"] == ["0_0_0", "1_0_0"], "the second has no surface any more"


def test_regions_are_told_again_one_by_one_however_many_there_are() -> None:
    told = Told(mesh_delta=False, mesh_regions=True, region_blocks=1)
    told.translation.mesh(delta(*map(block, range(150))))
    told.translation.mesh(delta(removed=((7, 0, 0),)))
    told.messages()
    told.translation.tell_again()
    faces = {m.routing_key: opened(m)["face_count"] for m in told.messages()}
    assert faces == {f"mesh.region.{x}_0_0": int(x != 7) for x in range(150)}


def test_a_bridge_that_has_seen_no_surface_does_not_say_that_there_is_none() -> None:
    told = Told(mesh_regions=True)
    told.translation.tell_again()
    assert told.messages() == []


def test_negative_blocks_lie_in_negative_regions() -> None:
    assert Regions(8).of((-1, 7, 8)) == (-1, 0, 1)


def test_a_mesh_without_faces_has_no_data() -> None:
    body = opened(mesh_messages("full", [], [], stamp_ns=1, level=7)[0])
    assert (body["data"], body["face_count"]) == ("", 0)


def test_tracks_are_told_with_the_shape_of_their_mask() -> None:
    told = Told()
    track = Track(
        id=5, label="red", score=1.0, box_px=(0, 0, 1, 1), area_px=12, age_frames=1,
        state=TrackState.CONFIRMED,
    )  # fmt: skip
    labels = np.zeros((6, 8), np.uint16)
    frame = TrackFrame(frame_id=4, keyframe_id=1, stamp_ns=STAMP_NS, tracks=(track,), labels=labels)
    told.translation.tracks(frame)
    (body,) = told.bodies(exchanges.PROCESSED_FRAMES)
    assert body["frame_number"] == 4
    assert body["objects"] == [{"id": 5, "mask_shape": [6, 8], "area": 12}]


def test_an_object_is_told_when_it_changed_and_not_again_unless_it_may_be_lost() -> None:
    told = Told()
    item = MapObject(
        id=2, label="car", score=0.5, world_from_box=np.eye(4), size=np.ones(3), point_count=9,
        last_seen_ns=STAMP_NS,
    )  # fmt: skip
    for _ in range(2):
        told.translation.objects(MapObjects(stamp_ns=STAMP_NS, objects=(item,)))
    (body,) = told.bodies(exchanges.API_RESULTS)
    assert (body["object_id"], body["results"]["label"]) == (2, "car")
    told.translation.tell_again()
    assert told.bodies(exchanges.API_RESULTS) == [body]


def test_an_object_that_moved_or_grew_is_told_and_many_take_one_posting() -> None:
    def item(id: int, x: float = 0.0, size: float = 1.0) -> MapObject:
        place = np.eye(4)
        place[0, 3] = x
        return MapObject(
            id=id, label="car", score=0.5, world_from_box=place, size=np.full(3, size),
            point_count=9, last_seen_ns=STAMP_NS,
        )  # fmt: skip

    told = Told()
    for items in (
        [item(1), item(2)],
        [item(1, x=1e-6), item(2, size=1.0 + 1e-6)],  # as a computer's rounding has it
        [item(1, x=0.5), item(2, size=3.0)],  # a loop closed, and the map became metric
    ):
        told.translation.objects(MapObjects(stamp_ns=STAMP_NS, objects=tuple(items)))
    bodies_ = told.bodies(exchanges.API_RESULTS)
    assert [body["object_id"] for body in bodies_] == [1, 2, 1, 2]
    many = Told()
    items = tuple(item(number) for number in range(300))
    many.translation.objects(MapObjects(stamp_ns=STAMP_NS, objects=items))
    assert len(many.bodies(exchanges.API_RESULTS)) == 300


def test_a_keyframe_that_is_told_again_is_none_that_came() -> None:
    """Another stage was begun anew and had all told again; who adds up points has them already."""
    told, moved = Told(), np.eye(4)
    moved[1, 3] = 5.0
    told.translation.keyframe(NewKeyframe(keyframe(7)))
    told.bodies(exchanges.KEYFRAMES)
    told.translation.keyframe(NewKeyframe(keyframe(7)))
    assert told.bodies(exchanges.KEYFRAMES) == []
    told.translation.keyframe(NewKeyframe(replace(keyframe(7), world_from_cam=moved)))
    (body,) = told.bodies(exchanges.KEYFRAMES)
    assert body["type"] == "keyframe.update"
    told.translation.keyframe(NewKeyframe(replace(keyframe(7), frame_id=900)))
    assert told.bodies(exchanges.KEYFRAMES)[0]["type"] == "keyframe.new", "it is another picture"


def test_the_size_of_a_keyframe_counts_from_when_it_was_told_again() -> None:
    """After the map turned metric another stage had all told again: points are in metres then."""
    told = Told()
    told.translation.keyframe(NewKeyframe(keyframe(7)))
    there = keyframe(7).world_from_cam
    told.translation.keyframe(MovedKeyframes({7: there}, point_scale={7: 2.0}))
    twice = replace(keyframe(7), pointmap=2 * keyframe(7).pointmap)
    told.translation.keyframe(NewKeyframe(twice))
    told.bodies(exchanges.KEYFRAMES)
    told.translation.keyframe(MovedKeyframes({7: there}, point_scale={7: 1.5}))
    (body,) = told.bodies(exchanges.KEYFRAMES)
    assert [corner[2] for corner in body["bbox"]] == pytest.approx([3.0, 3.0])


def test_the_whole_surface_is_told_at_its_turn_and_at_the_end_though_nothing_comes() -> None:
    told = Told(mesh_full_s=1e-6, mesh_delta=False)
    told.translation.mesh(delta(block(0)))
    assert [m.routing_key for m in told.messages()] == ["mesh.full"]
    told.translation.look()
    assert told.messages() == [], "nothing is new"

    late = Told(mesh_full_s=1000.0, mesh_delta=False)
    late.translation.mesh(delta(block(0)))
    late.translation.look()
    assert late.messages() == [], "its turn has not come"
    late.translation._full_sent_s -= 1000.0
    late.translation.look()
    assert [opened(m)["face_count"] for m in late.messages()] == [1]
    late.translation.mesh(delta(block(1)))
    late.translation.flush()
    late.translation.flush()
    assert [opened(m)["face_count"] for m in late.messages()] == [2]


def test_without_a_broker_the_oldest_goes_and_every_posting_is_accounted_for() -> None:
    ledger = StageLedger("bridge")
    outbox = Outbox(3, ledger)
    made = []
    for number in range(5):
        outbox.post(lambda number=number: made.append(number) or [])
    outbox.close("broker_away")
    state = ledger.state()
    assert not made, "bodies are made only for a broker that is there"
    assert state.dropped == {"queue_full": 2, "broker_away": 3}
    assert (state.taken, state.in_flight, ledger.violations) == (5, 0, 0)


def test_the_place_of_a_broker_never_tells_its_password() -> None:
    assert place_of("amqp://me:secret@box:5673/v") == "box:5673"
    for wrong in ("", "http://me:secret@box", "amqp://me:secret@box:port/"):
        with pytest.raises(ConfigError) as error:
            place_of(wrong)
        assert "secret" not in str(error.value)
