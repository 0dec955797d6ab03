# SPDX-License-Identifier: Apache-2.0
"""What other processes are offered, and that streams do not mix."""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace

import cv2
import numpy as np
import pytest
from ingest_lab import encode, wait_until
from rosbags.rosbag2 import Reader

rclpy = pytest.importorskip("rclpy", reason="ROS is not set up: run these through `make test`")


@pytest.fixture
def played(tmp_path, context):
    """A function that has a node play two pictures of a size, with parameters, to their end."""
    from rclpy.parameter import Parameter

    from worldsystem_ingest.node import IngestNode

    nodes = []

    def play(width, height, **parameters):
        for number in range(2):
            picture = np.zeros((height, width, 3), np.uint8)
            assert cv2.imwrite(str(tmp_path / f"{number}.png"), picture)
        given = {"source": str(tmp_path), **parameters}
        overrides = [Parameter(name, value=value) for name, value in given.items()]
        nodes.append(IngestNode(context=context, parameter_overrides=overrides))
        assert nodes[-1].ended.wait(30.0)
        assert nodes[-1].frames_published == 2
        return nodes[-1]

    yield play
    for node in nodes:
        node.input_ended()
        node.close()


@pytest.mark.parametrize(
    ("width", "height", "given", "offered"),
    [
        (640, 360, {}, 1),
        (1920, 1080, {}, 0),
        (1920, 1080, {"raw_outside_max_px": 8192}, 1),
    ],
)
def test_raw_pictures_are_offered_outside_only_while_they_are_small(
    width, height, given, offered, played
):
    node = played(width, height, **given)
    assert node.count_publishers("camera/image_raw") == offered
    assert node.count_publishers("camera/video") == 1
    assert node.problem() == ""


def test_an_ingest_that_is_loaded_anew_numbers_its_pictures_on(context):
    """Whoever is handed them by reference, as slam3r, takes only ids that grow."""
    from rclpy.parameter import Parameter

    from worldsystem_core.frames import EncodedFrame, Frame
    from worldsystem_core.ros import topics
    from worldsystem_core.ros.reference_topic import ReferenceSubscription
    from worldsystem_ingest.node import IngestNode

    listener = rclpy.create_node("listener", context=context)
    heard = [
        ReferenceSubscription(listener, topic, lambda item: None, depth=10)
        for topic in (topics.IMAGE, topics.VIDEO, topics.in_namespace(topics.IMAGE, "drone2"))
    ]
    unit = EncodedFrame(id=0, stamp_ns=1, arrival_ns=1, data=b"", is_key=True)
    rgb = np.zeros((90, 160, 3), np.uint8)
    given = [Parameter("source", value="server:"), Parameter("port", value=0)]
    for _ in range(3):
        ingest = IngestNode(context=context, parameter_overrides=given)
        for number in range(2):
            ingest.encoded(replace(unit, id=number))
            ingest.frame(Frame(id=number, stamp_ns=1, rgb=rgb))
        ingest.frame(Frame(id=0, stamp_ns=1, rgb=rgb, stream="drone2"))
        assert (ingest.ledger.state().used, ingest.ledger.violations) == (2, 0)
        ingest.input_ended()
        ingest.close()
    ids = [[link.inbox.get(0.0).id for _ in range(len(link.inbox))] for link in heard]
    assert ids == [list(range(6)), list(range(6)), list(range(3))]
    for link in heard:
        link.destroy()
    listener.destroy_node()


def test_its_domain_is_seen_to_have_a_source_while_it_is_there(played, context):
    from worldsystem_core.dds_domain import is_marked

    node = played(640, 360)
    assert is_marked(context.get_domain_id())
    node.input_ended()
    node._mark.close()
    assert not is_marked(context.get_domain_id())


def test_what_others_listen_for_and_are_not_offered_is_told_once_with_the_parameter(
    played, context, monkeypatch, caplog
):
    from sensor_msgs.msg import Image

    monkeypatch.setattr("worldsystem_ingest.raw_outside.LEAVING_S", 0.0)
    other = rclpy.create_node("other", context=context)
    other.create_subscription(Image, "camera/image_raw", lambda image: None, 2)
    node = played(1920, 1080)
    wait_until(lambda: node.problem() != "")
    assert "set ingest.raw_outside_max_px to 1920 or more" in node.problem()
    assert len([r for r in caplog.records if "raw_outside_max_px" in r.message]) == 1
    other.destroy_node()


def test_a_further_stream_has_its_own_topics_and_account_and_is_recorded(context, tmp_path):
    """Two drones may count their frames alike: neither must settle the other's."""
    from rclpy.parameter import Parameter

    from worldsystem_core.frames import EncodedFrame, Frame
    from worldsystem_core.ros.node_thread import NodeThread, finish_all
    from worldsystem_core.telemetry import PressureSample
    from worldsystem_ingest.node import IngestNode
    from worldsystem_storage.node import RecorderNode

    def overrides(**values):
        return [Parameter(name, value=value) for name, value in values.items()]

    ingest = IngestNode(context=context, parameter_overrides=overrides(source="server:", port=0))
    folder = overrides(folder=str(tmp_path), name="bag")
    recorder = RecorderNode(context=context, parameter_overrides=folder)
    threads = [NodeThread(ingest), NodeThread(recorder)]
    for thread in threads:
        thread.start()
    rgb = np.zeros((90, 160, 3), np.uint8)
    picture = encode(1)[0].data
    ingest.frame(Frame(id=0, stamp_ns=10**18, rgb=rgb))
    ingest.dropped(0, "corrupt", "drone2")
    wait_until(lambda: "drone2" in recorder._namespaces)
    for number in (1, 2):
        stamp_ns = 10**18 + number
        ingest.measured(PressureSample(stamp_ns=stamp_ns, pressure_pa=101_325.0), "drone2")
        ingest.frame(Frame(id=number, stamp_ns=stamp_ns, rgb=rgb, stream="drone2"))
        ingest.encoded(
            EncodedFrame(
                id=number,
                stamp_ns=stamp_ns,
                arrival_ns=stamp_ns,
                data=picture,
                is_key=True,
                stream="drone2",
            )
        )
    assert ingest.count_publishers("drone2/camera/image_raw") == 1
    accounts = {ledger.stage: ledger.state() for ledger in ingest.all_ledgers()}
    finish_all(threads, 20.0)
    assert accounts["ingest"].used == 1
    assert (accounts["ingest/drone2"].taken, accounts["ingest/drone2"].used) == (3, 2)
    assert accounts["ingest/drone2"].dropped == {"corrupt": 1}
    assert all(ledger.violations == 0 for ledger in ingest.all_ledgers())
    with Reader(tmp_path / "bag") as bag:
        counts = {c.topic: c.msgcount for c in bag.connections}
    assert counts["/drone2/camera/video"] == counts["/drone2/baro/pressure"] == 2
    assert len(list(tmp_path.glob("video/drone2/*/video.mp4"))) == 1


class Breaking:
    """A source that fails in a way that nobody foresaw."""

    live = True

    def run(self, sink, stop):
        raise KeyError("no such thing")

    def facts(self):
        return {}

    def problem(self):
        return ""


def test_a_source_that_fails_unexpectedly_is_told_and_not_taken_for_its_end(
    context, monkeypatch, caplog
):
    from worldsystem_ingest import node as node_module

    monkeypatch.setattr(node_module, "open_source", lambda url, config: Breaking())
    node = node_module.IngestNode(context=context)
    try:
        assert node.ended.wait(10.0)
        assert isinstance(node.error, KeyError)
        assert "no such thing" in node.problem()
        assert (node.facts()["ended"], node.facts()["failed"]) == (True, True)
        assert "Traceback" in caplog.text
    finally:
        node.input_ended()
        node.close()


def test_a_source_that_broke_off_says_where_in_the_nodes_facts(context, monkeypatch):
    from worldsystem_ingest import node as node_module
    from worldsystem_ingest.sink import Summary

    class BreakingOff(Breaking):
        def run(self, sink, stop):
            return Summary(frames=3, broken="the file ends in the middle")

    monkeypatch.setattr(node_module, "open_source", lambda url, config: BreakingOff())
    node = node_module.IngestNode(context=context)
    try:
        assert node.ended.wait(10.0)
        assert (node.facts()["failed"], node.problem()) == (False, "")
        assert node.facts()["broken"] == "the file ends in the middle"
    finally:
        node.input_ended()
        node.close()


def test_a_picture_without_a_camera_after_one_with_says_once_that_none_is_known(
    context, monkeypatch
):
    """Another sender sends it: `sensor_msgs/CameraInfo` prescribes zeros for what is not known."""
    from worldsystem_core.frames import Camera, Frame
    from worldsystem_ingest import node as node_module

    monkeypatch.setattr(node_module, "open_source", lambda url, config: Breaking())
    node, told = node_module.IngestNode(context=context), []
    try:
        assert node.ended.wait(10.0)
        stream, phone = node.config.stream, Camera.from_horizontal_fov(32, 24, 1.2)
        monkeypatch.setattr(node._out(stream).camera, "publish", told.append)
        for n, camera in enumerate([None, phone, None, None, phone]):
            rgb = np.zeros((24, 32, 3), np.uint8)
            node.frame(Frame(id=n, stamp_ns=n, rgb=rgb, camera=camera, stream=stream))
        assert [info.stamp_ns for info in told] == [1, 2, 4]
        assert [info.camera.fx for info in told] == [phone.fx, 0.0, phone.fx]
        assert (told[1].camera.width, told[1].camera.fy) == (32, 0.0)
    finally:
        node.input_ended()
        node.close()


class Busy:
    """A stage after ingest that works on its first picture until `go`."""

    def __init__(self, context):
        from worldsystem_core.config import Config
        from worldsystem_core.ros import topics
        from worldsystem_core.ros.node_thread import NodeThread
        from worldsystem_core.ros.stage_node import StageNode

        @dataclass(frozen=True)
        class NoSettings(Config):
            """Nothing to set."""

        self.go = threading.Event()
        node = StageNode("busy", NoSettings, context=context)
        self.inbox = node.listen(topics.IMAGE, lambda frame: self.go.wait(60.0), depth=1)
        self.thread = NodeThread(node)
        self.thread.start()


def test_a_picture_that_waits_for_room_at_the_end_is_handed_on_and_settled_once(
    tmp_path, context, monkeypatch
):
    from rclpy.parameter import Parameter

    from worldsystem_core.ros.node_thread import NodeThread
    from worldsystem_ingest import node as ingest

    monkeypatch.setattr(ingest, "_JOIN_S", 0.1)
    for number in range(9):
        assert cv2.imwrite(str(tmp_path / f"{number}.png"), np.zeros((16, 16, 3), np.uint8))
    busy = Busy(context)
    given = [Parameter("source", value=str(tmp_path))]
    thread = NodeThread(ingest.IngestNode(context=context, parameter_overrides=given))
    thread.start()
    ledger = thread.node.ledger
    wait_until(lambda: ledger.state().in_flight == 1 and ledger.taken == 3, 30.0)
    later = threading.Timer(0.5, busy.go.set)
    later.start()
    thread.finish(30.0)
    thread.node._thread.join(30.0)
    state = ledger.state()
    assert (state.used, state.dropped, state.in_flight) == (state.taken, {}, 0)
    assert ledger.violations == 0
    later.join()
    busy.thread.finish(30.0)
    for each in (thread, busy.thread):
        each.node.close()


def test_measurements_of_a_file_wait_for_a_stage_that_is_busy_as_its_pictures_do(
    context, monkeypatch
):
    from worldsystem_core.ros import topics
    from worldsystem_core.ros.reference_topic import ReferenceSubscription
    from worldsystem_core.telemetry import PressureSample
    from worldsystem_ingest import node as node_module
    from worldsystem_ingest.sink import Summary

    class Measuring(Breaking):
        live = False

        def run(self, sink, stop):
            for stamp_ns in range(1, 301):
                sink.measured(PressureSample(stamp_ns=stamp_ns, pressure_pa=1e5), "camera")
            return Summary(frames=0)

    monkeypatch.setattr(node_module, "open_source", lambda url, config: Measuring())
    listener = rclpy.create_node("listener", context=context)
    link = ReferenceSubscription(listener, topics.PRESSURE, lambda item: None)
    node, heard = node_module.IngestNode(context=context), []
    try:
        assert not node.ended.wait(0.5)  # the inbox is full, and the source waits
        while len(heard) < 300 and (item := link.inbox.get(10.0)) is not None:
            heard.append(item.stamp_ns)
        assert heard == list(range(1, 301))
        assert node.ended.wait(10.0)
    finally:
        link.give_up()
        node.input_ended()
        node.close()
        link.destroy()
        listener.destroy_node()
