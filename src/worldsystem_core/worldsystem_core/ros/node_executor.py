# SPDX-License-Identifier: Apache-2.0
"""An executor that keeps its wait set, so that a message of another process costs a third.

rclpy's filters, enters and adds every entity of a node anew at each wake, and wakes once more after
each callback. Only what comes often, subscriptions and timers, is called back from the kept set;
for all else, such as services, rclpy's own turn is taken, which finds it ready as well.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node

from worldsystem_core.ros.kept_wait_set import KeptWaitSet

_Called = Callable[[], Coroutine[Any, Any, Any]] | None


class NodeExecutor(SingleThreadedExecutor):
    """Runs the callbacks of one node, plain functions, in the thread that calls `spin_until`."""

    def __init__(self, node: Node) -> None:
        self._changed = True
        self._kept: KeptWaitSet | None = None
        super().__init__(context=node.context)
        self._node = node
        self.add_node(node)

    def wake(self) -> None:
        """Look at the node's entities anew: one has come or gone, or the context has ended."""
        self._changed = True
        super().wake()

    def spin_until(self, ended: threading.Event) -> None:
        """Call back until then; `ended` is looked at after a callback, or a `wake`."""
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
        elif self._has_tasks():
            self._take_rclpys_turn()
        else:
            self._wait_and_call_back()

    def _has_tasks(self) -> bool:
        """Whether something was left for this thread, such as those who wait for an answer."""
        return any(not task.done() for task, _, _ in list(self._tasks))

    def _wait_and_call_back(self) -> None:
        kept = self._current()
        kept.wait()
        if not self._context.ok():
            raise ExternalShutdownException
        for timer in kept.ready_timers():
            self._run(self._take_timer(timer))
        for subscription in kept.ready_subscriptions():
            self._run(self._take_subscription(subscription))
        if kept.others_ready():
            self._take_rclpys_turn()

    def _take_rclpys_turn(self) -> None:
        """One callback of those that are not called from the kept set."""
        super().spin_once(0.0)
        self._cb_iter = None  # what it found besides is in use by it until its next turn

    def _current(self) -> KeptWaitSet:
        if self._kept is None or self._changed:
            self._changed = False  # first: what changes while it is made is looked at next time
            self._let_go()
            self._kept = KeptWaitSet(self._node, self._guard, self._context)
        return self._kept

    def _run(self, taken: _Called) -> None:
        """Call back with what was `taken`, nothing of an entity that is gone."""
        if taken is not None:
            with suppress(StopIteration):
                taken().send(None)

    def _let_go(self) -> None:
        kept, self._kept = self._kept, None
        if kept is not None:
            kept.close()
