# SPDX-License-Identifier: Apache-2.0
"""A topic's quality of service is overridden by parameters, and by nothing that looks like one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

rclpy = pytest.importorskip("rclpy", reason="ROS is not set up: run these through `make test`")

from rclpy.parameter import Parameter  # noqa: E402
from rclpy.qos import DurabilityPolicy, HistoryPolicy, ReliabilityPolicy  # noqa: E402

from worldsystem_core.config import Config  # noqa: E402
from worldsystem_core.errors import ConfigError  # noqa: E402
from worldsystem_core.frames import Frame  # noqa: E402
from worldsystem_core.quality_overrides import POLICIES  # noqa: E402
from worldsystem_core.ros import reference_topic, topics  # noqa: E402
from worldsystem_core.ros.stage_node import StageNode  # noqa: E402

OF_PICTURES = "qos_overrides./camera/image_raw.subscription"


@dataclass(frozen=True, kw_only=True)
class NoSettings(Config):
    """None."""


@pytest.fixture
def stage(context, monkeypatch):
    """A function that makes a stage with overrides."""
    monkeypatch.setattr(reference_topic, "_registry", reference_topic.TopicRegistry())
    made = []

    def make(**overrides):
        given = [Parameter(name, value=value) for name, value in overrides.items()]
        made.append(StageNode("stage", NoSettings, context=context, parameter_overrides=given))
        return made[-1]

    yield make
    for node in made:
        node.close()


def waiting_after(stage, pictures, **settings):
    """How many pictures wait in a stage that reads none, after so many from its own process."""
    publisher = stage.advertise(topics.IMAGE)
    inbox = stage.listen(topics.IMAGE, lambda frame: None, **settings)
    for number in range(pictures):
        rgb = np.zeros((2, 2, 3), np.uint8)
        publisher.publish(Frame(id=number, stamp_ns=number, rgb=rgb))
    return len(inbox)


def test_an_overridden_depth_says_how_many_wait_between_stages_of_a_process(stage):
    assert waiting_after(stage(**{f"{OF_PICTURES}.depth": 7}), 10) == 7


def test_without_an_override_as_many_wait_as_the_table_of_topics_says(stage):
    assert waiting_after(stage(), 10) == topics.IMAGE.qos.depth == 2


def test_a_stage_that_says_itself_how_many_wait_is_not_overridden(stage):
    assert waiting_after(stage(**{f"{OF_PICTURES}.depth": 7}), 10, depth=4) == 4


def test_each_policy_that_can_be_overridden_reaches_dds(stage):
    words = {
        "history": "keep_all",
        "depth": 7,
        "reliability": "best_effort",
        "durability": "transient_local",
    }
    assert words.keys() == POLICIES.keys()
    listener = stage(**{f"{OF_PICTURES}.{policy}": word for policy, word in words.items()})
    listener.listen(topics.IMAGE, lambda frame: None)
    (found,) = listener.get_subscriptions_info_by_topic("/camera/image_raw")
    assert listener._links[-1]._dds.qos_profile.history is HistoryPolicy.KEEP_ALL
    assert listener._links[-1]._dds.qos_profile.depth == 7
    assert found.qos_profile.reliability == ReliabilityPolicy.BEST_EFFORT
    assert found.qos_profile.durability == DurabilityPolicy.TRANSIENT_LOCAL


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        (f"{OF_PICTURES}.reliabilty", "best_effort", "history, depth, reliability, durability"),
        (f"{OF_PICTURES}.deadline", 5, "history, depth, reliability, durability"),
        (f"{OF_PICTURES}.reliability", "best-effort", "reliable, best_effort"),
        (f"{OF_PICTURES}.depth", 0, "1 or more"),
        (f"{OF_PICTURES}.depth", "7", "1 or more"),
        ("qos_overrides./camera/image_raw.subscriber.depth", 7, "<publisher|subscription>"),
        ("qos_overrides.camera/image_raw.subscription.depth", 7, "/<topic>"),
        ("qos_overrides./camera/image_raw.depth", 7, "<publisher|subscription>"),
    ],
)
def test_an_override_that_can_be_none_is_refused_with_what_could_be_one(stage, name, value, words):
    with pytest.raises(ConfigError) as error:
        stage(**{name: value})
    assert name in str(error.value)
    assert words in str(error.value)
