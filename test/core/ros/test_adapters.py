# SPDX-License-Identifier: Apache-2.0
"""What is written by hand as CDR must be what rclpy reads."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS is not set up: run these through `make test`")

from message_lab import STAMP, some_pose
from rclpy.serialization import deserialize_message, serialize_message
from worldsystem_msgs.msg import Track as TrackMessage
from worldsystem_msgs.msg import TrackArray

from worldsystem_core.cloud import PointCloud
from worldsystem_core.errors import ProtocolError
from worldsystem_core.frames import Camera, EncodedFrame, Frame, StampedCamera
from worldsystem_core.latency import LatencyHistogram
from worldsystem_core.ledger import LedgerState, StageReport
from worldsystem_core.objects import (
    MapObject,
    MapObjects,
    Track,
    TrackFrame,
    TrackState,
)
from worldsystem_core.reconstruction import (
    Keyframe,
    MovedKeyframes,
    NewKeyframe,
    Pose,
    RemovedKeyframes,
    ScaleState,
    Successor,
    TrackingState,
)
from worldsystem_core.ros import topics
from worldsystem_core.ros.adapters.objects import (
    mask_from_run_lengths,
    run_lengths,
)
from worldsystem_core.surface import MeshBlock, MeshDelta
from worldsystem_core.telemetry import (
    AttitudeSample,
    BatterySample,
    GpsFix,
    ImuSample,
    OdometrySample,
    PressureSample,
)
from worldsystem_core.trajectory import StampedPoses

CAMERA = Camera(width=6, height=4, fx=5.0, fy=5.5, cx=2.5, cy=1.5)


def some_keyframe() -> Keyframe:
    rng = np.random.default_rng(1)
    pointmap = rng.normal(size=(4, 6, 3)).astype(np.float32)
    pointmap[0, 0] = np.nan
    return Keyframe(
        id=7,
        frame_id=2**40,
        stamp_ns=STAMP,
        world_from_cam=some_pose(),
        camera=CAMERA,
        pointmap=pointmap,
        confidence=rng.random((4, 6), dtype=np.float32),
        rgb=rng.integers(0, 256, (4, 6, 3), dtype=np.uint8),
    )


def through(topic, item):
    messages = topic.adapter.dump(item)
    for message in messages:
        deserialize_message(message, topic.adapter.ros_type)
    return [topic.adapter.load(message) for message in messages]


@pytest.mark.parametrize("shape", [(4, 6), (3, 5), (1, 1)])
def test_a_picture_comes_back_pixel_for_pixel_with_its_stamp(shape):
    rgb = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    (back,) = through(topics.IMAGE, Frame(id=3, stamp_ns=STAMP, rgb=rgb))
    assert back.stamp_ns == STAMP
    np.testing.assert_array_equal(back.rgb, rgb)


@pytest.mark.parametrize("size", [0, 1, 7, 1000])
def test_encoded_video_comes_back_byte_for_byte(size):
    data = bytes(np.random.default_rng(size).integers(0, 256, size, dtype=np.uint8))
    frame = EncodedFrame(id=1, stamp_ns=STAMP, arrival_ns=STAMP, data=data, is_key=False)
    (back,) = through(topics.VIDEO, frame)
    assert (back.data, back.stamp_ns) == (data, STAMP)


def test_a_new_keyframe_comes_back_whole_and_names_its_unknown_points():
    keyframe = some_keyframe()
    (back,) = through(topics.KEYFRAME, NewKeyframe(keyframe))
    assert (back.keyframe.id, back.keyframe.frame_id) == (7, 2**40)
    assert back.keyframe.camera == CAMERA
    np.testing.assert_array_equal(back.keyframe.pointmap, keyframe.pointmap)
    np.testing.assert_array_equal(back.keyframe.confidence, keyframe.confidence)
    np.testing.assert_array_equal(back.keyframe.rgb, keyframe.rgb)
    np.testing.assert_allclose(back.keyframe.world_from_cam, keyframe.world_from_cam, atol=1e-12)


def test_the_bounding_box_of_a_keyframe_ignores_unknown_points():
    (cdr,) = topics.KEYFRAME.adapter.dump(NewKeyframe(some_keyframe()))
    message = deserialize_message(cdr, topics.KEYFRAME.adapter.ros_type)
    known = some_keyframe().pointmap.reshape(-1, 3)[1:]
    low, high = message.bounds_min, message.bounds_max
    np.testing.assert_allclose((low.x, low.y, low.z), known.min(axis=0), rtol=1e-6)
    np.testing.assert_allclose((high.x, high.y, high.z), known.max(axis=0), rtol=1e-6)


@pytest.mark.parametrize("count", [0, 1, 1000])
def test_a_cloud_comes_back_point_for_point_in_the_frame_of_its_scale(count):
    rng = np.random.default_rng(count)
    points = rng.normal(size=(count, 3)).astype(np.float32)
    rgb = rng.integers(0, 256, (count, 3), dtype=np.uint8)
    sent = PointCloud(STAMP, points, rgb, ScaleState.METRIC)
    (cdr,) = topics.CLOUD.adapter.dump(sent)
    message = deserialize_message(cdr, topics.CLOUD.adapter.ros_type)
    assert (message.header.frame_id, message.width, message.height) == ("map", count, 1)
    assert message.is_dense
    assert message.row_step == 16 * count == len(message.data)
    back = topics.CLOUD.adapter.load(cdr)
    assert (back.stamp_ns, back.scale) == (STAMP, ScaleState.METRIC)
    np.testing.assert_array_equal(back.points, points)
    np.testing.assert_array_equal(back.rgb, rgb)


def test_a_correction_carries_sizes_and_the_change_of_the_root():
    change = MovedKeyframes({7: some_pose(1)}, {7: 23.5}, ScaleState.METRIC)
    (back,) = through(topics.KEYFRAME, change)
    assert back.point_scale == {7: 23.5}
    assert back.scale is ScaleState.METRIC
    (plain,) = through(topics.KEYFRAME, MovedKeyframes({7: some_pose(1)}))
    assert plain.point_scale == {}
    assert plain.scale is None


def test_a_path_says_its_frame():
    poses = StampedPoses(np.array([STAMP]), some_pose()[None], ScaleState.METRIC)
    (back,) = through(topics.PATH, poses)
    assert back.scale is ScaleState.METRIC


def test_moved_and_removed_keyframes_become_one_message_each():
    moved = through(topics.KEYFRAME, MovedKeyframes({1: some_pose(1), 2: some_pose(2)}))
    assert [list(event.world_from_cam) for event in moved] == [[1], [2]]
    np.testing.assert_allclose(moved[1].world_from_cam[2], some_pose(2), atol=1e-12)
    removed = through(topics.KEYFRAME, RemovedKeyframes((4, 5)))
    assert [event.ids for event in removed] == [(4,), (5,)]
    assert not any(event.successors for event in removed)


def test_a_removed_keyframe_names_the_one_that_stands_in_for_it():
    heir = Successor(9, some_pose(3), 1.25)
    kept, gone = through(topics.KEYFRAME, RemovedKeyframes((4, 5), {4: heir}))
    assert (kept.heirs, kept.wrong, gone.heirs, gone.wrong) == ({4: 9}, (), {}, (5,))
    np.testing.assert_allclose(kept.successors[4].world_from_cam, some_pose(3), atol=1e-12)
    assert kept.successors[4].point_scale == 1.25


@pytest.mark.parametrize("missing", [4, 5, 8])
def test_a_keyframe_recorded_before_there_were_successors_is_read(missing):
    """Bags hold messages that end where theirs did."""
    (cdr,) = topics.KEYFRAME.adapter.dump(RemovedKeyframes((4,)))
    assert topics.KEYFRAME.adapter.load(cdr[:-missing]).ids == (4,)


def test_a_lost_frame_tells_ros_nothing_and_a_tracked_one_its_pose():
    fields = {"frame_id": 1, "stamp_ns": STAMP, "confidence": 0.5, "world_from_cam": some_pose()}
    assert not topics.POSE.adapter.dump(Pose(**fields, state=TrackingState.LOST))
    (back,) = through(topics.POSE, Pose(**fields, state=TrackingState.TRACKED))
    np.testing.assert_allclose(back.world_from_cam, some_pose(), atol=1e-12)


@pytest.mark.parametrize("blocks", [0, 1, 3])
def test_a_mesh_delta_comes_back_vertex_for_vertex(blocks):
    rng = np.random.default_rng(blocks)
    made = tuple(
        MeshBlock(
            index=(i, -i, 2 * i),
            version=i,
            vertices=rng.normal(size=(5 + i, 3)).astype(np.float32),
            colours=rng.integers(0, 256, (5 + i, 3), dtype=np.uint8),
            faces=rng.integers(0, 5, (4, 3)).astype(np.int32),
        )
        for i in range(blocks)
    )
    delta = MeshDelta(
        stamp_ns=STAMP,
        sequence=9,
        base_sequence=8,
        block_size=0.25,
        blocks=made,
        removed=((1, 2, 3), (-4, 5, -6)),
        total_vertices=100,
        total_faces=200,
        keyframe_count=3,
        capture_ns=STAMP - 5,
    )
    (back,) = through(topics.MESH, delta)
    assert (back.sequence, back.base_sequence, back.capture_ns) == (9, 8, STAMP - 5)
    assert back.removed == delta.removed
    assert [block.index for block in back.blocks] == [block.index for block in made]
    for ours, theirs in zip(back.blocks, made, strict=True):
        np.testing.assert_array_equal(ours.vertices, theirs.vertices)
        np.testing.assert_array_equal(ours.colours, theirs.colours)
        np.testing.assert_array_equal(ours.faces, theirs.faces)


@pytest.mark.parametrize("scale", ScaleState)
def test_a_path_comes_back_pose_for_pose_and_may_be_empty(scale):
    stamps = STAMP + np.arange(5) * 1_999_999_999
    poses = StampedPoses(stamps, np.stack([some_pose(seed) for seed in range(5)]), scale)
    (back,) = through(topics.PATH, poses)
    np.testing.assert_array_equal(back.stamps_ns, poses.stamps_ns)
    assert back.scale is scale
    np.testing.assert_allclose(back.world_from_cam, poses.world_from_cam, atol=1e-12)
    empty = StampedPoses(np.zeros(0, np.int64), np.zeros((0, 4, 4)))
    assert len(through(topics.PATH, empty)[0]) == 0


def test_tracks_come_back_with_their_masks():
    labels = np.zeros((5, 7), np.uint16)
    labels[1:3, 2:5], labels[4, 6], labels[0, 0] = 300, 2, 9
    tracks = tuple(
        Track(
            id=i,
            label="red box",
            score=0.5,
            box_px=(0, 1, 2, 3),
            area_px=6,
            age_frames=4,
            state=TrackState.CONFIRMED,
        )
        for i in (300, 2, 9)
    )
    frame = TrackFrame(frame_id=1, keyframe_id=2, stamp_ns=STAMP, tracks=tracks, labels=labels)
    (back,) = through(topics.TRACKS, frame)
    assert back.tracks == tracks
    np.testing.assert_array_equal(back.labels, labels)
    np.testing.assert_array_equal(through(topics.LABELS, frame)[0].labels, labels)


@pytest.mark.parametrize("fill", [0.0, 0.3, 1.0])
def test_run_lengths_restore_the_mask(fill):
    mask = np.random.default_rng(0).random((6, 5)) < fill
    runs = run_lengths(mask)
    assert sum(runs) == mask.size
    np.testing.assert_array_equal(mask_from_run_lengths(runs, 6, 5), mask)


@pytest.mark.parametrize(
    ("height", "width", "runs"),
    [(10_000, 40_000, []), (2**32 - 1, 2**32 - 1, []), (4, 4, [2**32 - 1] * 3), (4, 4, [5])],
)
def test_tracks_that_claim_more_pixels_than_there_are_cost_nothing(height, width, runs):
    tracks = [TrackMessage(id=1, mask_rle=runs)]
    cdr = serialize_message(TrackArray(height=height, width=width, tracks=tracks))
    tracemalloc.start()
    with pytest.raises(ProtocolError):
        topics.TRACKS.load(cdr)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 2**20


@pytest.mark.parametrize("topic", topics.ALL, ids=lambda topic: topic.name)
def test_bytes_that_are_no_message_of_a_topic_are_refused(topic):
    for data in (b"", b"\0\1\0\0", b"\xff" * 300):
        with pytest.raises(ProtocolError):
            topic.load(data)


def test_objects_telemetry_and_the_ledger_come_back_as_they_were():
    thing = MapObject(
        id=1,
        label="box",
        score=1.0,
        world_from_box=some_pose(),
        size=np.array([1.0, 2.0, 3.0]),
        point_count=10,
        last_seen_ns=STAMP,
    )
    (back,) = through(topics.OBJECTS, MapObjects(stamp_ns=STAMP, objects=(thing,)))
    np.testing.assert_allclose(back.objects[0].size, thing.size)
    np.testing.assert_allclose(back.objects[0].world_from_box, thing.world_from_box, atol=1e-12)
    imu = ImuSample(stamp_ns=STAMP, acceleration=(0.1, 0.2, 9.8), angular_velocity=(1.0, 2.0, 3.0))
    assert through(topics.IMU, imu) == [imu]
    fix = GpsFix(stamp_ns=STAMP, latitude_deg=47.0, longitude_deg=8.0, altitude_m=400.0)
    assert through(topics.GPS, fix) == [fix]
    camera = StampedCamera(stamp_ns=STAMP, camera=CAMERA)
    assert through(topics.CAMERA_INFO, camera) == [camera]
    report = StageReport(
        stamp_ns=STAMP,
        ledger=LedgerState("ingest", 10, 7, {"corrupt": 2}),
        violations=0,
        latency_counts=tuple(LatencyHistogram().counts()),
    )
    assert through(topics.LEDGER, report) == [report]


@pytest.mark.parametrize(
    ("topic", "sample"),
    [
        (topics.ATTITUDE, AttitudeSample(stamp_ns=STAMP, map_from_body=(0.5, -0.5, 0.5, 0.5))),
        (
            topics.ODOMETRY,
            OdometrySample(
                stamp_ns=STAMP,
                position_m=(1.0, -2.0, 0.5),
                level_from_body=(0.5, -0.5, 0.5, 0.5),
                position_error_m=0.25,
            ),
        ),
        (topics.PRESSURE, PressureSample(stamp_ns=STAMP, pressure_pa=95_123.4)),
        (
            topics.BATTERY,
            BatterySample(
                stamp_ns=STAMP,
                charge=0.5,
                voltage_v=11.25,
                current_a=-4.5,
                temperature_c=31.5,
                charging=False,
            ),
        ),
        (
            topics.GPS,
            GpsFix(
                stamp_ns=STAMP,
                latitude_deg=46.5,
                longitude_deg=7.5,
                altitude_m=561.0,
                horizontal_error_m=4.0,
                vertical_error_m=8.0,
            ),
        ),
    ],
)
def test_telemetry_survives_the_way_to_ros_and_back(topic, sample):
    (cdr,) = topic.adapter.dump(sample)
    assert topic.adapter.load(cdr) == sample


def test_what_a_sample_does_not_know_is_marked_as_unknown():
    attitude = AttitudeSample(stamp_ns=STAMP, map_from_body=(0.0, 0.0, 0.0, 1.0))
    imu = deserialize_message(
        topics.ATTITUDE.adapter.dump(attitude)[0], topics.IMU.adapter.ros_type
    )
    assert imu.linear_acceleration_covariance[0] == imu.angular_velocity_covariance[0] == -1.0
    assert imu.orientation_covariance[0] == 0.0
    fix = GpsFix(stamp_ns=STAMP, latitude_deg=46.0, longitude_deg=7.0, altitude_m=0.0)
    message = deserialize_message(topics.GPS.adapter.dump(fix)[0], topics.GPS.adapter.ros_type)
    assert message.position_covariance_type == message.COVARIANCE_TYPE_UNKNOWN
    battery = BatterySample(stamp_ns=STAMP, charge=0.25)
    message = deserialize_message(
        topics.BATTERY.adapter.dump(battery)[0], topics.BATTERY.adapter.ros_type
    )
    assert np.isnan([message.voltage, message.current, message.temperature]).all()
    assert message.power_supply_status == message.POWER_SUPPLY_STATUS_UNKNOWN


@pytest.mark.parametrize("errors_m", [(65.0, np.nan), (np.nan, 8.0)])
def test_a_fix_that_tells_one_of_its_errors_keeps_it_on_the_way_to_ros_and_back(errors_m):
    fix = GpsFix(
        stamp_ns=STAMP,
        latitude_deg=46.0,
        longitude_deg=7.0,
        altitude_m=561.0,
        horizontal_error_m=errors_m[0],
        vertical_error_m=errors_m[1],
    )
    (cdr,) = topics.GPS.adapter.dump(fix)
    found = topics.GPS.adapter.load(cdr)
    np.testing.assert_allclose((found.horizontal_error_m, found.vertical_error_m), errors_m)


@pytest.mark.parametrize("event", [MovedKeyframes({7: some_pose(1)}), RemovedKeyframes((7,))])
def test_a_correction_leaves_out_what_belongs_to_the_picture_as_its_definition_says(event):
    (cdr,) = topics.KEYFRAME.adapter.dump(event)
    message = deserialize_message(cdr, topics.KEYFRAME.adapter.ros_type)
    stamp = message.header.stamp
    assert (stamp.sec, stamp.nanosec, message.frame_id, message.width, message.height) == (0,) * 5
    np.testing.assert_array_equal(np.reshape(message.k, (3, 3)), np.eye(3))
