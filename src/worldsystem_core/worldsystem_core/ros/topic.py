# SPDX-License-Identifier: Apache-2.0
"""What a topic is: its name, its objects as ROS messages and back, and its quality of service."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from rclpy.qos import QoSProfile

from worldsystem_core.errors import ProtocolError
from worldsystem_core.handoff import Handoff

T = TypeVar("T")
# what rclpy, numpy and our own checks say of bytes that are no message
_NO_MESSAGE = (ArithmeticError, LookupError, MemoryError, RuntimeError, TypeError, ValueError)


class Adapter(Protocol[T]):
    """How a native object becomes ROS messages, and back."""

    ros_type: type

    def dump(self, item: T) -> list[bytes]:
        """The CDR bytes of the messages that tell `item` to ROS: usually one, possibly none."""
        ...

    def load(self, cdr: bytes) -> T:
        """The native object of one message; arrays may be views of `cdr`."""
        ...


@dataclass(frozen=True)
class Topic(Generic[T]):
    """A topic's name, how its objects become messages, and its quality of service.

    `shared`: others may publish it beside a stage, and all of them are heard. `inbox` is where
    objects wait in a subscriber, at most `waiting` (0: as many as `qos`, or an override, says).
    """

    name: str
    adapter: Adapter[T]
    qos: QoSProfile
    latched: bool = False
    shared: bool = False
    inbox: Callable[[int, Callable[[T], None] | None], Handoff[T]] = Handoff
    waiting: int = 0

    def heard_with(self) -> QoSProfile:
        """What a subscription asks of DDS: `qos`, and room there for no fewer than `waiting`. It is
        the caller's own, for rclpy writes overrides into it."""
        profile = copy.copy(self.qos)
        profile.depth = max(profile.depth, self.waiting)
        return profile

    def load(self, cdr: bytes) -> T:
        """The native object of one message; raises `ProtocolError` for bytes that are none."""
        try:
            return self.adapter.load(cdr)
        except _NO_MESSAGE as error:
            raise ProtocolError(f"{self.name}: no message ({error})") from error
