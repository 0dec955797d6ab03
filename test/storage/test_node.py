# SPDX-License-Identifier: Apache-2.0
"""The recorder among other nodes: bytes as published, services, a disk that is full."""

from __future__ import annotations

import errno
import threading
import time
from datetime import datetime
from types import SimpleNamespace

import numpy as np
import pytest
from plain_keyframe import plain_keyframe

pytest.importorskip("rclpy", reason="ROS is not set up: run these through `make test`")

from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.serialization import deserialize_message
from recorder_lab import messages, recorder, wait_until
from sensor_msgs.msg import CompressedImage, Imu
from std_msgs.msg import String
from worldsystem_msgs.srv import StartRecording, StopRecording

from worldsystem_core.frames import Camera, EncodedFrame, Frame
from worldsystem_core.ros import qos, topics
from worldsystem_core.ros.node_thread import finish_all
from worldsystem_core.ros.reference_topic import BytesSubscription, ReferencePublisher
from worldsystem_core.telemetry import ImuSample
from worldsystem_ingest.config import IngestConfig
from worldsystem_ingest.source import open_source
from worldsystem_storage import space
from worldsystem_storage.bag_check import verify
from worldsystem_storage.errors import StorageError
from worldsystem_storage.node import RecorderNode

pytestmark = pytest.mark.ros


def offered(node: RecorderNode, topic: str) -> int:
    return node._bag.state().topics[topic].offered


def test_every_message_is_there_as_another_reader_gets_it(context, tmp_path):
    node, thread = recorder(context, tmp_path, topics="/imu/data /gps/fix")
    sensor = Node("sensor", context=context)
    plain = sensor.create_publisher(Imu, "/imu/data", qos.TELEMETRY)
    wait_until(lambda: plain.get_subscription_count() > 0)
    sent = []
    for number in range(200):
        message = Imu()
        message.header.stamp.sec, message.header.frame_id = number, f"frame {number}"
        sent.append(message)
        plain.publish(message)
        time.sleep(0.001)
    wait_until(lambda: offered(node, "/imu/data") == 200)
    finish_all([thread], 20.0)
    sensor.destroy_node()
    found = messages(tmp_path / "bag")
    assert set(found) == {"/imu/data"}
    assert [deserialize_message(raw, Imu) for raw in found["/imu/data"]] == sent
    assert verify(tmp_path / "bag") == []


def test_the_bytes_are_those_that_a_stage_publishes(context, tmp_path):
    node, thread = recorder(context, tmp_path)
    stage = Node("stage", context=context)
    imu = ReferencePublisher(stage, topics.IMU)
    witness = BytesSubscription(stage, topics.IMU, print, depth=300)
    samples = [
        ImuSample(stamp_ns=n, acceleration=(n, 0.5, 9.81), angular_velocity=(0.0, n, 0.0))
        for n in range(300)
    ]
    for sample in samples:
        imu.publish(sample)
    wait_until(lambda: offered(node, "/imu/data") == 300)
    published = [witness.inbox.get(0.0) for _ in samples]
    witness.destroy()
    imu.destroy()
    finish_all([thread], 20.0)
    stage.destroy_node()
    assert messages(tmp_path / "bag")["/imu/data"] == published


def test_a_recording_is_started_and_stopped_by_service_and_counts_its_messages(context, tmp_path):
    node, thread = recorder(context, tmp_path, record_at_start=False)
    stage = Node("stage", context=context)
    imu = ReferencePublisher(stage, topics.IMU)
    sample = ImuSample(stamp_ns=1, acceleration=(0.0, 0.0, 9.81), angular_velocity=(0.0,) * 3)
    imu.publish(sample)
    stop, start = StopRecording.Response, StartRecording.Response
    assert node._on_stop(None, stop()).message == "nothing is being recorded"
    begun = node._on_start(StartRecording.Request(folder="first"), start())
    assert begun.success
    assert begun.folder == str(tmp_path / "first")
    again = node._on_start(StartRecording.Request(folder="second"), start())
    assert not again.success
    assert "stop that first" in again.message
    for _ in range(5):
        imu.publish(sample)
    wait_until(lambda: offered(node, "/imu/data") == 5)
    done = node._on_stop(None, stop())
    assert done.success
    assert done.messages >= 5
    taken = node._on_start(StartRecording.Request(folder="first"), start())
    assert not taken.success
    assert "already holds a bag" in taken.message
    imu.destroy()
    finish_all([thread], 20.0)
    stage.destroy_node()
    assert len(messages(tmp_path / "first")["/imu/data"]) == 5


def test_a_run_that_is_recorded_anew_goes_on_beside_the_bag_before(context, tmp_path):
    node, thread = recorder(context, tmp_path)
    assert node._bag.folder == tmp_path / "bag"
    for name in ("bag_2", "bag_3"):
        assert node._on_stop(None, StopRecording.Response()).success
        begun = node._on_start(StartRecording.Request(), StartRecording.Response())
        assert begun.folder == str(tmp_path / name)
    finish_all([thread], 20.0)
    with pytest.raises(StorageError, match="already holds a bag"):  # another run would mix with it
        recorder(context, tmp_path)


def test_a_full_disk_is_told_by_service_and_diagnostics_and_the_node_keeps_running(
    context, tmp_path, monkeypatch
):
    with monkeypatch.context() as full:
        full.setattr(space, "free_bytes", lambda folder: 1000)
        node, thread = recorder(context, tmp_path)
        assert "make room" in node.problem()
        refused = node._on_start(StartRecording.Request(folder="x"), StartRecording.Response())
        assert not refused.success
        assert "reserve_mib" in refused.message
        assert thread.failure is None
    wait_until(lambda: node._bag is not None)
    assert node.problem() == ""
    with monkeypatch.context() as full:
        full.setattr(space, "free_bytes", lambda folder: 1000)
        wait_until(lambda: node._bag.state().stopped)
        stopped = node._on_stop(None, StopRecording.Response())
        assert not stopped.success
        assert "1 MiB are kept" in stopped.message
        assert stopped.folder == str(tmp_path / "bag")
    finish_all([thread], 20.0)
    assert verify(tmp_path / "bag") == []


def test_a_recording_without_video_files_says_so_and_its_bag_goes_on(context, tmp_path):
    (tmp_path / "video").write_text("a file where the folder should be")
    node, thread = recorder(context, tmp_path, topics="/imu/data")
    samples = ReferencePublisher(node, topics.IMU)
    assert "no video files are written" in node.problem()
    samples.publish(ImuSample(stamp_ns=1, angular_velocity=(0.0,) * 3, acceleration=(0.0,) * 3))
    wait_until(lambda: offered(node, "/imu/data") == 1)
    finish_all([thread], 10.0)
    assert verify(tmp_path / "bag") == []
    assert len(messages(tmp_path / "bag")["/imu/data"]) == 1


def test_keyframes_are_written_as_pictures_with_poses(context, tmp_path):
    _, thread = recorder(context, tmp_path)
    stage = Node("stage", context=context)
    keyframes = ReferencePublisher(stage, topics.KEYFRAME)
    keyframes.publish(plain_keyframe(4))
    wait_until(lambda: list(tmp_path.glob("video/*/keyframe_4.jpg")))
    keyframes.destroy()
    finish_all([thread], 20.0)
    stage.destroy_node()
    (pose,) = tmp_path.glob("video/*/pose_4.npy")
    assert np.array_equal(np.load(pose), np.eye(4))


def test_topics_of_other_nodes_are_recorded_when_they_are_asked_for(context, tmp_path):
    node, thread = recorder(context, tmp_path, topics="/lidar ^/note$", exclude="/lidar/raw")
    other = Node("other", context=context)
    note = other.create_publisher(String, "/note", qos.LATCHED)
    scans = other.create_publisher(
        Imu, "/lidar/imu", QoSProfile(depth=50, reliability=ReliabilityPolicy.BEST_EFFORT)
    )
    raw = other.create_publisher(Imu, "/lidar/raw", 10)
    unasked = other.create_publisher(String, "/elsewhere", 10)
    note.publish(String(data="said before the recorder listened"))
    wait_until(lambda: {"/note", "/lidar/imu"} <= set(node._foreign))
    wait_until(lambda: scans.get_subscription_count() == 1)
    for number in range(20):
        message = Imu()
        message.header.stamp.sec = number
        scans.publish(message)
        raw.publish(message)
        unasked.publish(String(data="no"))
        time.sleep(0.005)
    wait_until(lambda: offered(node, "/lidar/imu") == 20 and offered(node, "/note") == 1)
    finish_all([thread], 20.0)
    other.destroy_node()
    found = messages(tmp_path / "bag")
    assert set(found) == {"/note", "/lidar/imu"}
    assert [deserialize_message(m, Imu).header.stamp.sec for m in found["/lidar/imu"]] == list(
        range(20)
    )
    assert deserialize_message(found["/note"][0], String).data.startswith("said before")


def test_a_topic_that_somebody_waited_for_is_recorded_as_its_publisher_offers_it(context, tmp_path):
    """A viewer was there first: what it asks for says nothing of what the driver will offer."""
    other = Node("other", context=context)
    unreliable = QoSProfile(depth=50, reliability=ReliabilityPolicy.BEST_EFFORT)
    other.create_subscription(Imu, "/lidar/imu", lambda _: None, unreliable)
    node, thread = recorder(context, tmp_path, topics="/lidar")
    wait_until(lambda: "/lidar/imu" in dict(node.get_topic_names_and_types()))
    time.sleep(1.2)  # it has looked for topics meanwhile
    scans = other.create_publisher(Imu, "/lidar/imu", unreliable)
    wait_until(lambda: "/lidar/imu" in node._foreign and scans.get_subscription_count() == 2)
    for _ in range(20):
        scans.publish(Imu())
        time.sleep(0.005)
    wait_until(lambda: offered(node, "/lidar/imu") == 20)
    finish_all([thread], 20.0)
    other.destroy_node()
    assert len(messages(tmp_path / "bag")["/lidar/imu"]) == 20


class Shown:
    """A sink that keeps the pictures."""

    def __init__(self) -> None:
        self.frames: list[Frame] = []
        self.losses: list[str] = []

    def frame(self, frame: Frame) -> None:
        self.frames.append(frame)

    def dropped(self, frame_id: int, reason: str, stream: str) -> None:
        self.losses.append(reason)

    def encoded(self, unit: EncodedFrame) -> None: ...

    def camera(self, camera: Camera, stream: str) -> None: ...

    def measured(self, sample: object, stream: str) -> None: ...


def picture(number: int) -> Frame:
    rgb = np.full((48, 64, 3), 5 * number, np.uint8)
    return Frame(id=number, stamp_ns=10**18 + number * 10**8, rgb=rgb)


def has_taken_pictures(node: RecorderNode, count: int) -> bool:
    topic = node._bag.state().topics.get("/camera/image/compressed")
    written = topic.offered if topic else 0
    return written + len(node._pictures[""]._waiting) == count


@pytest.mark.parametrize("count", [3, 40])
def test_pictures_without_encoded_video_are_recorded_and_play_again(context, tmp_path, count):
    node, thread = recorder(context, tmp_path)
    stage = Node("stage", context=context)
    images = ReferencePublisher(stage, topics.IMAGE, outside=False)
    for number in range(count):
        images.publish(picture(number), patience_s=10.0)
    wait_until(lambda: has_taken_pictures(node, count))
    images.destroy()
    finish_all([thread], 20.0)
    stage.destroy_node()
    assert verify(tmp_path / "bag") == []
    recorded = messages(tmp_path / "bag")["/camera/image/compressed"]
    told = {deserialize_message(raw, CompressedImage).format for raw in recorded}
    assert told == {"rgb8; jpeg compressed bgr8"}
    shown = Shown()
    source = open_source(f"bag:{tmp_path / 'bag'}", IngestConfig())
    assert source.run(shown, threading.Event()).broken is None
    assert not shown.losses
    assert [frame.stamp_ns for frame in shown.frames] == [
        picture(number).stamp_ns for number in range(count)
    ]
    for number, frame in enumerate(shown.frames):
        assert abs(frame.rgb.mean() - 5 * number) < 2


def picture_of(unit: EncodedFrame) -> Frame:
    return Frame(id=unit.id, stamp_ns=unit.stamp_ns, rgb=np.zeros((48, 64, 3), np.uint8))


@pytest.fixture
def sender(context):
    """Publishes pictures, those of units after their units, and lets none go."""
    stage = Node("stage", context=context)
    images = ReferencePublisher(stage, topics.IMAGE, outside=False)
    videos = ReferencePublisher(stage, topics.VIDEO)

    def send(*what: EncodedFrame | Frame) -> None:
        for item in what:
            if isinstance(item, EncodedFrame):
                videos.publish(item, patience_s=10.0)
            frame = picture_of(item) if isinstance(item, EncodedFrame) else item
            images.publish(frame, patience_s=10.0)

    yield send
    images.destroy()
    videos.destroy()
    stage.destroy_node()


def test_pictures_that_are_in_the_video_are_not_recorded_again(
    context, tmp_path, encoded_video, sender
):
    node, thread = recorder(context, tmp_path)
    sender(*encoded_video(40))
    wait_until(lambda: offered(node, "/camera/video") == 40 and node.idle)
    assert node.facts()["not_in_video"] == 0
    finish_all([thread], 20.0)
    found = messages(tmp_path / "bag")
    assert len(found["/camera/video"]) == 40
    assert "/camera/image/compressed" not in found


def test_a_sender_without_encoded_video_may_follow_one_with_it(
    context, tmp_path, encoded_video, sender
):
    node, thread = recorder(context, tmp_path)
    units = encoded_video(20)
    between = [
        Frame(id=number, stamp_ns=units[9].stamp_ns + number, rgb=np.zeros((48, 64, 3), np.uint8))
        for number in range(10, 50)
    ]
    sender(*units[:10], *between, *units[10:])
    wait_until(lambda: offered(node, "/camera/video") == 20 and node.idle)
    assert node.facts()["not_in_video"] == 0
    assert node._on_stop(None, StopRecording.Response()).success
    again = node._on_start(StartRecording.Request(folder="again"), StartRecording.Response())
    assert again.success
    sender(*(picture(number) for number in range(40)))
    wait_until(lambda: node.idle)
    finish_all([thread], 20.0)
    stamps = {
        name: [
            deserialize_message(raw, CompressedImage).header.stamp.nanosec
            for raw in messages(tmp_path / name)["/camera/image/compressed"]
        ]
        for name in ("bag", "again")
    }
    assert stamps["bag"] == [frame.stamp_ns % 10**9 for frame in between]
    assert stamps["again"] == [picture(number).stamp_ns % 10**9 for number in range(40)]


def test_no_pictures_are_recorded_where_video_is_not_wanted(context, tmp_path):
    node, thread = recorder(context, tmp_path, topics="/imu/data")
    for number in range(40):
        assert node._pictures[""].take(picture(number)) == []
    assert node._pictures[""].rest() == []
    finish_all([thread], 20.0)


def test_two_recordings_begun_in_one_second_lie_beside_each_other(context, tmp_path, monkeypatch):
    clock = SimpleNamespace(now=lambda: datetime(2026, 1, 1, 12))
    monkeypatch.setattr("worldsystem_storage.node.datetime", clock)
    node, thread = recorder(context, tmp_path, name="")
    assert node._bag.folder == tmp_path / "20260101_120000"
    assert node._on_stop(None, StopRecording.Response()).success
    begun = node._on_start(StartRecording.Request(), StartRecording.Response())
    assert begun.success, begun.message
    assert begun.folder == str(tmp_path / "20260101_120000_2")
    finish_all([thread], 20.0)


def test_a_recording_that_cannot_be_finished_is_told_by_the_service_that_stops_it(
    context, tmp_path, monkeypatch
):
    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    node, thread = recorder(context, tmp_path, topics="/imu/data", video_files=False)
    monkeypatch.setattr(node._bag._files.file, "close", fail)
    stopped = node._on_stop(None, StopRecording.Response())
    assert not stopped.success
    assert "cannot finish" in stopped.message
    finish_all([thread], 20.0)


def test_a_recorder_that_waits_for_room_does_not_begin_once_it_was_told_to_stop(
    context, tmp_path, monkeypatch
):
    with monkeypatch.context() as full:
        full.setattr(space, "free_bytes", lambda folder: 1000)
        node, thread = recorder(context, tmp_path)
        assert "make room" in node.problem()
        with node.turn:
            stopped = node._on_stop(None, StopRecording.Response())
        assert stopped.message == "nothing is being recorded"
    with node.turn:
        node._watch()
        assert node._bag is None
        assert node.problem() == ""
    finish_all([thread], 20.0)
    assert not (tmp_path / "bag").exists()
