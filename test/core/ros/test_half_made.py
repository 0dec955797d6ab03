# SPDX-License-Identifier: Apache-2.0
"""A node whose constructor fails is as if it had never been: the others of its process go on."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import pytest

rclpy = pytest.importorskip("rclpy", reason="ROS is not set up: run these through `make test`")

from rclpy.node import Node  # noqa: E402
from rclpy.parameter import Parameter  # noqa: E402

from worldsystem_core.config import Config  # noqa: E402
from worldsystem_core.errors import ConfigError, SourceError  # noqa: E402
from worldsystem_core.frames import Frame  # noqa: E402
from worldsystem_core.ros import reference_topic, topics  # noqa: E402
from worldsystem_core.ros.reference_topic import (  # noqa: E402
    ReferencePublisher,
    ReferenceSubscription,
)
from worldsystem_core.ros.stage_node import StageNode  # noqa: E402

PATIENCE_S = 20.0


@dataclass(frozen=True, kw_only=True)
class NoSettings(Config):
    """Nothing to set."""


class HalfMade(StageNode):
    """Joins topics, and finds then that it cannot be."""

    def __init__(self, context, **keywords):
        super().__init__("half_made", NoSettings, context=context, **keywords)
        self.advertise(topics.GPS)
        self.listen(topics.IMAGE, lambda frame: None)
        self.listen_bytes(topics.IMAGE, lambda message: None, direct=True)
        raise SourceError("there is no such source")


@pytest.fixture
def other(context, monkeypatch):
    """A node beside it in the process."""
    monkeypatch.setattr(reference_topic, "_registry", reference_topic.TopicRegistry())
    node = Node("other", context=context)
    yield node
    node.destroy_node()


def wait_until(condition):
    deadline = time.monotonic() + 20.0
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert condition()


def fail_to_make(context, **keywords):
    with pytest.raises(SourceError):
        HalfMade(context, **keywords)


def test_others_still_hear_its_topics_from_outside(context, other):
    heard = ReferenceSubscription(other, topics.GPS, lambda fix: None)
    fail_to_make(context)
    heard.relink()
    assert heard._dds is not None, "nobody in the process publishes it"
    heard.destroy()


def test_nobody_waits_for_room_in_its_inboxes(context, other):
    fail_to_make(context)
    out = ReferencePublisher(other, topics.IMAGE, outside=False)
    begun_s = time.monotonic()
    for number in range(5):
        frame = Frame(id=number, stamp_ns=number, rgb=np.zeros((2, 2, 3), np.uint8))
        out.publish(frame, patience_s=PATIENCE_S)
    assert time.monotonic() - begun_s < PATIENCE_S
    assert out.readers == 0
    out.destroy()


def test_it_is_no_node_any_more(context, other):
    fail_to_make(context)
    with pytest.raises(ConfigError):
        HalfMade(context, parameter_overrides=[Parameter("sourc", value="a misspelt one")])
    wait_until(lambda: "half_made" not in other.get_node_names())
    assert other.count_publishers("gps/fix") == 0


def test_a_node_that_cannot_even_begin_says_why(context, other):
    with pytest.raises(rclpy.exceptions.InvalidNamespaceException):
        HalfMade(context, namespace="not a namespace")


def test_a_link_that_fails_half_way_is_none(context, other, monkeypatch):
    def fail(*arguments, **keywords):
        raise RuntimeError("DDS has no room")

    monkeypatch.setattr(other, "create_subscription", fail)
    with pytest.raises(RuntimeError):
        ReferenceSubscription(other, topics.IMAGE, lambda frame: None)
    out = ReferencePublisher(other, topics.IMAGE, outside=False)
    assert out.readers == 0
    out.destroy()
