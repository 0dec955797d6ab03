# SPDX-License-Identifier: Apache-2.0
"""Which topics are latched, and what tells the parts of one apart."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rclpy.qos import DurabilityPolicy, QoSProfile

from worldsystem_core.errors import ProtocolError
from worldsystem_core.latched_parts import only_part
from worldsystem_core.ros import topics
from worldsystem_core.ros.topic import Topic


def is_latched(qos: QoSProfile) -> bool:
    """Whether a topic's last message is for those who come later, too."""
    return qos.durability is DurabilityPolicy.TRANSIENT_LOCAL


def part_of(topic: Topic[Any]) -> Callable[[bytes], str]:
    """Names the part of a latched topic that a message of it tells."""
    return _static_frames if topic is topics.TF_STATIC else only_part


def _static_frames(message: bytes) -> str:
    """Which frames a message of `/tf_static` places; each publisher tells its own."""
    try:
        transforms = topics.TF_STATIC.load(message).transforms
    except ProtocolError:
        return ""
    return " ".join(sorted(each.child_frame_id for each in transforms))
