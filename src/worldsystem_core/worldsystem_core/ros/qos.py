# SPDX-License-Identifier: Apache-2.0
"""Quality of service by kind of topic; every profile can be overridden by parameters.

Images are reliable with depth 2: measured between processes, best effort loses large frames and
reliable with a short queue does not (docs/decisions/002-dds-profile.md). A loop closure tells every
keyframe, and every chunk of splats, in a message of its own, one behind the other, and none may be
lost.
"""

from __future__ import annotations

from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy


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
