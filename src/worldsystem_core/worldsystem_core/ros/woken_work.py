# SPDX-License-Identifier: Apache-2.0
"""What another thread or process has done for a node, taken up in the node's own turn."""

from __future__ import annotations

import math
from collections.abc import Callable

from rclpy.node import Node

from worldsystem_core.ros.delivery import delivery_of


class WokenWork:
    """Calls back, before anything else that waits, once `wake` was called.

    `due` says how much is still being done elsewhere: meanwhile the node is not idle.
    """

    def __init__(self, node: Node, callback: Callable[[], None], due: Callable[[], int]) -> None:
        self._callback = callback
        self._due = due
        self._woken = self._busy = False
        self._delivery = delivery_of(node)
        self._delivery.add(self)

    def wake(self) -> None:
        """There is something to take up; safe from any thread."""
        self._woken = True
        self._delivery.wake()

    @property
    def oldest(self) -> float:
        """Before all objects of topics, or nothing."""
        return -1.0 if self._woken else math.inf

    @property
    def idle(self) -> bool:
        """Nothing is taken up, to be taken up, or due."""
        return not self._due() and not self._woken and not self._busy

    def deliver(self) -> None:
        """Call back."""
        self._busy, self._woken = True, False
        try:
            self._callback()
        except BaseException:
            self._delivery.wake()  # for what waits behind it
            raise
        finally:
            self._busy = False

    def relink(self) -> None:
        """It hangs on no topic."""

    def destroy(self) -> None:
        """Call back no more."""
        self._delivery.remove(self)
