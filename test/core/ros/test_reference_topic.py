# SPDX-License-Identifier: Apache-2.0
"""By reference inside the process, ordinary messages outside it."""

from __future__ import annotations

import copy
import itertools
import subprocess
import sys
import textwrap
import time
from dataclasses import replace

import numpy as np
import pytest

rclpy = pytest.importorskip("rclpy", reason="ROS is not set up: run these through `make test`")

from geometry_msgs.msg import TransformStamped  # noqa: E402
from rclpy.executors import SingleThreadedExecutor  # noqa: E402
from rclpy.node import Node  # noqa: E402
from rclpy.qos import QoSProfile, ReliabilityPolicy, qos_profile_sensor_data  # noqa: E402
from rclpy.serialization import deserialize_message, serialize_message  # noqa: E402
from sensor_msgs.msg import Image, NavSatFix, NavSatStatus  # noqa: E402
from tf2_msgs.msg import TFMessage  # noqa: E402

from worldsystem_core.faults import WITHIN_S, LastFault  # noqa: E402
from worldsystem_core.frames import Frame  # noqa: E402
from worldsystem_core.ledger import LedgerState, StageReport  # noqa: E402
from worldsystem_core.ros import reference_topic, topics  # noqa: E402
from worldsystem_core.ros.reference_topic import (  # noqa: E402
    BytesSubscription,
    ReferencePublisher,
    ReferenceSubscription,
)


def a_frame(number: int) -> Frame:
    return Frame(id=number, stamp_ns=number, rgb=np.full((8, 8, 3), number, np.uint8))


def test_a_subscriber_in_the_process_gets_the_same_pixels_and_nothing_is_serialised(node, spin):
    publisher, got = ReferencePublisher(node, topics.IMAGE), []
    ReferenceSubscription(node, topics.IMAGE, got.append)
    sent = a_frame(1)
    publisher.publish(sent)
    spin(lambda: got)
    assert got[0] is sent
    assert got[0].rgb.ctypes.data == sent.rgb.ctypes.data
    assert publisher.serialised == 0


def test_what_is_handed_over_cannot_be_written_to():
    with pytest.raises(ValueError, match="read-only"):
        a_frame(1).rgb[0, 0] = 0


def test_a_full_inbox_lets_the_oldest_go_and_says_which(node, spin):
    publisher, got, gone = ReferencePublisher(node, topics.IMAGE), [], []
    ReferenceSubscription(node, topics.IMAGE, got.append, gone.append)
    for number in range(5):
        publisher.publish(a_frame(number))
    spin(lambda: len(got) == 2)
    assert [frame.id for frame in got] == [3, 4]
    assert [frame.id for frame in gone] == [0, 1, 2]


def test_a_patient_publisher_loses_nothing(node, spin):
    import threading

    publisher, got, gone = ReferencePublisher(node, topics.IMAGE), [], []
    ReferenceSubscription(node, topics.IMAGE, got.append, gone.append)

    def publish():
        for number in range(20):
            publisher.publish(a_frame(number), patience_s=5.0)

    thread = threading.Thread(target=publish)
    thread.start()
    spin(lambda: len(got) == 20)
    thread.join()
    assert [frame.id for frame in got] == list(range(20))
    assert not gone


def test_bytes_are_made_once_however_many_want_them_and_only_while_wanted(node, spin):
    publisher, first, second = ReferencePublisher(node, topics.IMAGE), [], []
    wanted = True
    BytesSubscription(node, topics.IMAGE, first.append, wanted=lambda: wanted)
    BytesSubscription(node, topics.IMAGE, second.append, wanted=lambda: wanted)
    publisher.publish(a_frame(1))
    spin(lambda: first and second)
    assert publisher.serialised == 1
    assert first[0] is second[0]
    wanted = False
    publisher.publish(a_frame(2))
    assert publisher.serialised == 1


def test_other_processes_publish_for_a_reader_at_need_only_while_it_wants_something(node, spin):
    kind, name = topics.IMAGE.adapter.ros_type, topics.IMAGE.name
    others, wanted, got = node.create_publisher(kind, name, 2), [], []
    BytesSubscription(
        node, topics.IMAGE, got.append, wanted=lambda: bool(wanted), direct=True, at_need=True
    )
    linked_at_all = BytesSubscription(node, topics.IMAGE, list, wanted=lambda: bool(wanted))
    spin(lambda: others.get_subscription_count() == 1)
    linked_at_all.destroy()
    spin(lambda: others.get_subscription_count() == 0)
    wanted.append(1)
    spin(lambda: others.get_subscription_count() == 1)
    others.publish(topics.IMAGE.adapter.dump(a_frame(1))[0])
    spin(lambda: got)
    wanted.clear()
    spin(lambda: others.get_subscription_count() == 0)


def test_a_publisher_knows_whether_anybody_would_get_an_object(node, spin):
    publisher = ReferencePublisher(node, topics.IMAGE)
    assert publisher.readers == 0
    wanted = []
    raw = BytesSubscription(node, topics.IMAGE, list, wanted=lambda: bool(wanted))
    assert publisher.readers == 0
    wanted.append(1)
    assert publisher.readers == 1
    native = ReferenceSubscription(node, topics.IMAGE, list)
    assert publisher.readers == 2
    outside = node.create_subscription(Image, "camera/image_raw", list, 2)
    spin(lambda: publisher.readers == 3)
    node.destroy_subscription(outside)
    raw.destroy()
    native.destroy()


def test_a_publisher_that_notes_joins_knows_of_each_reader_that_ever_came(node, spin):
    publisher = ReferencePublisher(node, topics.MESH_STREAM, notes_joins=True)
    assert publisher.joins == 0
    kind, name = topics.MESH_STREAM.adapter.ros_type, topics.MESH_STREAM.name
    first = node.create_subscription(kind, name, list, 2)
    spin(lambda: publisher.joins == publisher.readers == 1)
    node.destroy_subscription(first)
    second = node.create_subscription(kind, name, list, 2)  # nobody looked in between
    spin(lambda: publisher.joins == 2 and publisher.readers == 1)
    node.destroy_subscription(second)
    spin(lambda: publisher.readers == 0)
    native = ReferenceSubscription(node, topics.MESH_STREAM, list)
    assert publisher.joins == 3
    native.destroy()
    ReferenceSubscription(node, topics.MESH_STREAM, list).destroy()
    assert publisher.joins == 4


def test_a_late_subscriber_of_a_latched_topic_gets_the_last_object(node, spin):
    from worldsystem_core.objects import MapObjects

    publisher, got = ReferencePublisher(node, topics.OBJECTS), []
    last = MapObjects(stamp_ns=5, objects=())
    publisher.publish(last)
    ReferenceSubscription(node, topics.OBJECTS, got.append)
    spin(lambda: got)
    assert got[0] is last


def test_a_subscriber_that_came_first_leaves_dds_once_the_publisher_is_in_the_process(node, spin):
    got = []
    subscription = ReferenceSubscription(node, topics.IMAGE, got.append)
    assert subscription._dds is not None
    publisher = ReferencePublisher(node, topics.IMAGE)
    spin(lambda: subscription._dds is None)
    publisher.publish(a_frame(1))
    spin(lambda: got)
    assert publisher.serialised == 0
    publisher.destroy()
    spin(lambda: subscription._dds is not None)


def test_a_plain_rclpy_script_in_another_process_reads_ordinary_messages(node, spin, context):
    script = textwrap.dedent(
        f"""
        import rclpy
        from rclpy.node import Node
        from sensor_msgs.msg import Image
        rclpy.init(domain_id={context.get_domain_id()})
        node, got = Node("outsider"), []
        node.create_subscription(Image, "camera/image_raw", got.append, 2)
        while len(got) < 3:
            rclpy.spin_once(node, timeout_sec=1.0)
        print(got[0].encoding, got[0].height, got[0].width, set(got[-1].data) == {{7}})
        """
    )
    publisher = ReferencePublisher(node, topics.IMAGE)
    outsider = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)

    def published_and_ended():
        publisher.publish(a_frame(7))
        return outsider.poll() is not None

    try:
        spin(published_and_ended, timeout_s=60.0)
    finally:
        outsider.kill()
    assert outsider.stdout.read().split() == ["rgb8", "8", "8", "True"]


def test_a_node_alone_in_its_process_gets_loaded_objects(node, spin, context):
    from rclpy.serialization import serialize_message  # noqa: F401  (rclpy is really there)
    from sensor_msgs.msg import Image

    got = []
    ReferenceSubscription(node, topics.IMAGE, got.append)
    outside = node.create_publisher(Image, "camera/image_raw", 2)
    message = Image(height=2, width=2, encoding="rgb8", step=6, data=bytes(range(12)))

    def published_and_got():
        outside.publish(message)
        return bool(got)

    spin(published_and_got)
    np.testing.assert_array_equal(got[0].rgb.ravel(), np.arange(12))


def test_what_is_no_message_is_counted_and_ends_nothing(node, spin, context):
    from rclpy.serialization import serialize_message

    got = []
    subscription = ReferenceSubscription(node, topics.IMAGE, got.append)
    outside = node.create_publisher(Image, "camera/image_raw", 2)
    good = Image(height=2, width=2, encoding="rgb8", step=6, data=bytes(12))
    bad = serialize_message(Image(height=9, width=2, encoding="rgb8", step=6, data=bytes(12)))

    turn = itertools.cycle((bad, good, bytes(bad)[:40]))

    def all_came():
        outside.publish(next(turn))
        return bool(got) and subscription.refused > 1

    spin(all_came)
    assert "left out" in subscription.problem
    np.testing.assert_array_equal(got[0].rgb.ravel(), np.zeros(12))


def test_one_message_that_is_none_is_no_problem_any_more_after_a_while(node, monkeypatch):
    now_s = [1000.0]
    monkeypatch.setattr(reference_topic, "LastFault", lambda: LastFault(lambda: now_s[0]))
    subscription = ReferenceSubscription(node, topics.IMAGE, lambda _: None)
    at = {"source_timestamp": 1, "received_timestamp": 1}
    for since_s, is_wrong in ((0.0, True), (WITHIN_S - 1.0, True), (WITHIN_S + 1.0, False)):
        now_s[0] += 1000.0
        subscription._on_dds(b"no picture", at)
        now_s[0] += since_s
        assert ("left out" in subscription.problem) == is_wrong
    assert subscription.refused == 3


def test_overriding_the_quality_of_one_topic_changes_no_other(context, monkeypatch):
    monkeypatch.setattr(reference_topic, "_registry", reference_topic.TopicRegistry())
    name = "qos_overrides./imu.publisher.reliability"
    given = [rclpy.parameter.Parameter(name, value="best_effort")]
    node = Node("tester", context=context, parameter_overrides=given)
    publisher = ReferencePublisher(node, replace(topics.IMAGE, name="imu"))
    assert publisher._dds.qos_profile.reliability is ReliabilityPolicy.BEST_EFFORT
    assert topics.IMAGE.qos.reliability is ReliabilityPolicy.RELIABLE
    node.destroy_node()


def test_a_publisher_that_offers_less_than_is_asked_for_is_told_of(node, spin):
    subscription = ReferenceSubscription(node, topics.IMAGE, lambda _: None)
    node.create_publisher(Image, "camera/image_raw", qos_profile_sensor_data)
    spin(lambda: bool(subscription.problem))
    assert "qos_overrides./camera/image_raw.subscription.reliability" in subscription.problem


def test_a_shared_topic_hears_other_processes_and_its_own_messages_once(node, spin):
    report = StageReport(
        stamp_ns=1, ledger=LedgerState("here", 1, 1), violations=0, latency_counts=(1,)
    )
    got = []
    publisher = ReferencePublisher(node, topics.LEDGER)
    ReferenceSubscription(node, topics.LEDGER, got.append)
    other = node.create_publisher(topics.LEDGER.adapter.ros_type, topics.LEDGER.name, 10)
    elsewhere = replace(report, ledger=LedgerState("elsewhere", 2, 2))
    (message,) = topics.LEDGER.adapter.dump(elsewhere)

    def both_heard():
        other.publish(message)
        return any(item.ledger.stage == "elsewhere" for item in got)

    spin(both_heard)
    publisher.publish(report)
    spin(lambda: any(item is report for item in got))
    after = replace(report, ledger=LedgerState("after", 3, 3))
    (message,) = topics.LEDGER.adapter.dump(after)
    other.publish(message)
    spin(lambda: any(item.ledger.stage == "after" for item in got))
    assert sum(item.ledger.stage == "here" for item in got) == 1


OF_OTHERS_TOO = (
    topics.IMU, topics.ATTITUDE, topics.GPS, topics.PRESSURE, topics.BATTERY, topics.ODOMETRY,
    topics.TF, topics.TF_STATIC,
)  # fmt: skip


def cdr_of(topic, second):
    """A message of its type that differs from those of other seconds."""
    message = topic.adapter.ros_type()
    header = message
    if isinstance(message, TFMessage):
        header = TransformStamped(child_frame_id=f"link_{second}")
        message.transforms.append(header)
    header.header.stamp.sec = second
    if isinstance(message, NavSatFix):
        message.status.status = NavSatStatus.STATUS_FIX
    return serialize_message(message)


def contents(topic, messages):
    """What they say, in any order: rclpy leaves in the gaps between fields what lay there."""
    return sorted(str(deserialize_message(cdr, topic.adapter.ros_type)) for cdr in messages)


@pytest.mark.parametrize("topic", OF_OTHERS_TOO, ids=lambda topic: topic.name)
def test_what_others_publish_beside_a_stage_is_heard_and_its_own_once(topic, node, spin):
    objects, messages = [], []
    publisher = ReferencePublisher(node, topic)
    native = ReferenceSubscription(node, topic, objects.append)
    raw = BytesSubscription(node, topic, lambda cdr: messages.append(bytes(cdr)), direct=True)
    other = node.create_publisher(topic.adapter.ros_type, topic.name, topic.qos)
    spin(lambda: native._dds is not None and raw._dds is not None)
    spin(lambda: publisher._dds.get_subscription_count() == other.get_subscription_count() == 2)
    own = topic.load(cdr_of(topic, 1))
    publisher.publish(own)
    (theirs,) = topic.adapter.dump(topic.load(cdr_of(topic, 2)))
    other.publish(theirs)
    spin(lambda: len(objects) > 1 and len(messages) > 1)
    assert objects[0] is own
    (mine,) = topic.adapter.dump(own)
    for heard in (messages, [topic.adapter.dump(item)[0] for item in objects]):
        assert contents(topic, heard) == contents(topic, [mine, theirs])


def test_own_messages_that_come_back_late_are_still_known(node, spin):
    """As many as the queues of DDS hold may do so, while the interpreter is busy."""
    deep, messages = replace(topics.TF, qos=QoSProfile(depth=1000)), []
    publisher = ReferencePublisher(node, deep)
    raw = BytesSubscription(node, deep, lambda cdr: messages.append(bytes(cdr)), direct=True)
    other = node.create_publisher(TFMessage, "/tf", 10)
    spin(lambda: raw._dds is not None and publisher._dds.get_subscription_count() > 0)
    for second in range(600):
        publisher.publish(deep.load(cdr_of(deep, second)))
    last = cdr_of(deep, 1000)
    other.publish(last)
    spin(lambda: bytes(last) in messages)
    assert len(messages) == len(set(messages)) == 601


def test_a_late_subscriber_hears_each_publisher_of_static_transforms(node, spin, context):
    """Their messages come all at once: none may take the place of another's."""
    own = [ReferencePublisher(node, topics.TF_STATIC) for _ in range(2)]
    others = [node.create_publisher(TFMessage, "/tf_static", own[0].topic.qos) for _ in range(5)]
    for second, publisher in enumerate([*own, *others]):
        cdr = cdr_of(topics.TF_STATIC, second)
        publisher.publish(topics.TF_STATIC.load(cdr) if publisher in own else cdr)
    placed, witnessed = [], []
    ReferenceSubscription(
        node,
        topics.TF_STATIC,
        lambda message: placed.append(message.transforms[0].child_frame_id),
    )
    witness, watching = Node("witness", context=context), SingleThreadedExecutor(context=context)
    watching.add_node(witness)
    witness.create_subscription(
        TFMessage, "/tf_static", witnessed.append, replace_depth(topics.TF_STATIC.qos, 100)
    )
    deadline = time.monotonic() + 10.0
    while len(witnessed) < 7 and time.monotonic() < deadline:
        watching.spin_once(timeout_sec=0.05)
    watching.shutdown()
    witness.destroy_node()
    spin(lambda: len(placed) >= 7)
    assert sorted(placed) == [f"link_{second}" for second in range(7)]


def replace_depth(qos, depth):
    deeper = copy.copy(qos)
    deeper.depth = depth
    return deeper
