# SPDX-License-Identifier: Apache-2.0
"""ROS messages from outside the process, as bytes, on each topic of the system."""

from __future__ import annotations

from memory import at_most

from worldsystem_core.errors import ProtocolError
from worldsystem_core.ros import topics

READABLE = tuple(
    topic for topic in topics.ALL if topic not in (topics.POINTS, topics.OVERLAY, topics.MARKERS)
)
_MOST_MB = 128  # a label image and a mask of the largest picture


def messages(data: bytes) -> None:
    """A message becomes a native object or a `ProtocolError`, in memory that its size explains.

    The first byte says on which topic it comes.
    """
    topic = READABLE[data[0] % len(READABLE)] if data else READABLE[0]
    with at_most(_MOST_MB, data):
        try:
            topic.load(data[1:])
        except ProtocolError:
            return
