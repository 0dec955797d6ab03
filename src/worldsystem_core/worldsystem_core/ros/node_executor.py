# SPDX-License-Identifier: Apache-2.0
"""An executor that keeps its wait set, so that a message of another process costs a third.

rclpy's filters, enters and adds every entity of a node anew at each wake, and wakes once more after
each callback. Only what comes often, subscriptions and timers, is called back from the kept set;
for all else, such as services, rclpy's own search is asked, which finds it ready as well.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

from rclpy.executors import (
    ExternalShutdownException,
    ShutdownException,
    SingleThreadedExecutor,
    TimeoutException,
)
from rclpy.node import Node
from rclpy.task import Task

from worldsystem_core.ros.kept_wait_set import KeptWaitSet

_AT_ONCE = 64
_Take = Callable[[Any], Callable[[], Coroutine[Any, Any, Any]] | None]


class NodeExecutor(SingleThreadedExecutor):
    """Runs the callbacks of one node, plain functions, in the thread that calls `spin_until`."""

    def __init__(self, node: Node) -> None:
        self._changed, self._asked = True, False
        self._kept: KeptWaitSet | None = None
        self._ended = threading.Event()
        super().__init__(context=node.context)
        self._node = node
        self.add_node(node)

    def wake(self) -> None:
        """Look at the node's entities anew: one has come or gone, or the context has ended."""
        self._changed = True
        super().wake()

    def create_task(self, callback: Any, *arguments: Any, **keywords: Any) -> Task:
        """As rclpy's, from any thread."""
        task = super().create_task(callback, *arguments, **keywords)
        self._asked = True  # behind it: a search may have looked before and taken its wake
        super().wake()
        return task

    def spin_until(self, ended: threading.Event) -> None:
        """Call back until then; `ended` is looked at after a callback, or a `wake`."""
        self._ended = ended
        try:
            while not ended.is_set():
                self.spin_once()
        finally:
            self._let_go()

    def spin_once(self, timeout_sec: float | None = None) -> None:
        """Wait, as long as it takes if no timeout is given, and call back what is ready then.

        `ExternalShutdownException` once the context has ended.
        """
        if timeout_sec is not None or self._is_shutdown:
            super().spin_once(timeout_sec)
        else:
            self._wait_and_call_back()

    def _wait_and_call_back(self) -> None:
        kept = self._current()
        kept.wait()
        if not self._context.ok():
            raise ExternalShutdownException
        for timer in kept.ready_timers():
            self._run(self._take_timer, timer)
        for subscription in kept.ready_subscriptions():
            self._run(self._take_subscription, subscription)
        if kept.others_ready():
            self._take_rclpys_turn()

    def _take_rclpys_turn(self) -> None:
        """Call back whatever is ready, what was left for this thread too."""
        self._asked = True
        while self._asked and not self._ended.is_set():
            self._asked = False  # what is left meanwhile may have woken a search that was over it
            with suppress(TimeoutException, ShutdownException):
                self._search()

    def _search(self) -> None:
        """`TimeoutException` once nothing is ready."""
        for _ in range(_AT_ONCE):
            task, _, _ = self.wait_for_ready_callbacks(0.0)
            task()
            if (error := task.exception()) is not None:
                raise error
            if self._ended.is_set():
                return
        super().wake()  # there may be more

    def _current(self) -> KeptWaitSet:
        if self._kept is None or self._changed:
            self._changed = False  # first: what changes while it is made is looked at next time
            self._let_go()
            self._kept = KeptWaitSet(self._node, self._guard, self._context)
        return self._kept

    def _run(self, take: _Take, entity: Any) -> None:
        """Call back with what there is of `entity`: nothing once that is gone, or at the end."""
        if self._ended.is_set():
            return
        if (taken := take(entity)) is not None:
            with suppress(StopIteration):
                taken().send(None)

    def _let_go(self) -> None:
        kept, self._kept = self._kept, None
        if kept is not None:
            kept.close()
