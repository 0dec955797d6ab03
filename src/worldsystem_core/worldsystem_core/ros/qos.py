# SPDX-License-Identifier: Apache-2.0
"""Quality of service by kind of topic; every profile can be overridden by parameters.

Images are reliable with depth 2: measured between processes, best effort loses large frames and
reliable with a short queue does not (docs/decisions/002-dds-profile.md). A loop closure tells every
keyframe, and every chunk of splats, in a message of its own, one behind the other, and none may be
lost.
"""

from __future__ import annotations

from rcl_interfaces.msg import ParameterDescriptor
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSPolicyKind, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions

from worldsystem_core.quality_overrides import POLICIES, PREFIX


def _profile(depth: int, *, latched: bool = False) -> QoSProfile:
    return QoSProfile(
        depth=depth,
        reliability=ReliabilityPolicy.RELIABLE,
        durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE,
    )


IMAGE = _profile(2)
VIDEO = _profile(30)
POSE = _profile(10)
TELEMETRY = _profile(100)
KEYFRAME = _profile(50)
KEYFRAMES = _profile(2000)
MESH = _profile(50)
STATUS = _profile(10)
LATCHED = _profile(1, latched=True)
TF = _profile(100)


def overridable() -> QoSOverridingOptions:
    """What parameters can override in a profile that rclpy is given."""
    return QoSOverridingOptions([QoSPolicyKind[policy.upper()] for policy in POLICIES])


def depth_of(node: Node, topic_name: str, profile: QoSProfile) -> int:
    """How many messages a subscription keeps: the depth of `profile`, unless `node` is given
    another one for `topic_name`, which is resolved."""
    name = f"{PREFIX}{topic_name}.subscription.depth"
    if not node.has_parameter(name):
        node.declare_parameter(name, profile.depth, ParameterDescriptor(read_only=True))
    return int(node.get_parameter(name).value)
