# SPDX-License-Identifier: Apache-2.0
"""Nodes in one process: each runs in threads of its own, all end in the order the data flows."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from rclpy.executors import ExternalShutdownException

from worldsystem_core.errors import StageStuck
from worldsystem_core.json_log import is_thread_of
from worldsystem_core.priority import lower_thread_priority
from worldsystem_core.ros.delivery import delivery_of
from worldsystem_core.ros.node_executor import NodeExecutor
from worldsystem_core.ros.stage_node import StageNode

log = logging.getLogger(__name__)

_POLL_S = 0.02
_JOIN_S = 5.0


class NodeThread:
    """One node in two threads: its executor's, and one that delivers what comes by reference.

    The node's callbacks run one at a time (`StageNode.turn`). rclpy's events executor, which would
    be cheaper, would deadlock here.
    """

    def __init__(self, node: StageNode) -> None:
        self.node = node
        self.name = str(node.get_name())
        self.failure: BaseException | None = None
        self._ended = threading.Event()
        self._executor = NodeExecutor(node)
        self._delivery = delivery_of(node)
        self._delivery.set_apart()
        self._threads = [self._thread(self._spin, ""), self._thread(self._deliver, "/delivery")]

    def _thread(self, work: Callable[[], None], suffix: str) -> threading.Thread:
        name = self.node.get_name() + suffix
        return threading.Thread(target=self._run, args=(work,), name=name, daemon=True)

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def _run(self, work: Callable[[], None]) -> None:
        lower_thread_priority(self.node.niceness)
        is_thread_of(self.node.get_name())
        try:
            work()
        except ExternalShutdownException:
            pass
        except Exception as error:  # the edge of the thread: the stage stops and says why
            self.failure = self.failure or error  # the other thread's may have been the cause
            log.exception("%s stopped", self.node.get_name())
            self._tell(error)
        self._end()

    def _spin(self) -> None:
        self._executor.spin_until(self._ended)

    def _deliver(self) -> None:
        self._delivery.run(self._ended)

    def _end(self) -> None:
        """Have both threads end after what they are at."""
        self._ended.set()
        self._executor.wake()
        self._delivery.wake()

    def _tell(self, error: Exception) -> None:
        try:
            with self.node.turn:  # what the other thread works on is settled before
                self.node.gave_up(error)
        except Exception:  # the same edge: what remains to be said is in the log
            log.exception("%s could not say that it stopped", self.node.get_name())

    def wait_idle(self, timeout_s: float) -> bool:
        """Wait until the node has worked off its inboxes, and whoever has its turn now is done (a
        service that is being answered); False after `timeout_s`. Later turns are not waited for:
        a timer may always have more to do."""
        deadline, turn = time.monotonic() + timeout_s, self.node.turn
        given = turn.given
        while not self.node.idle or (turn.is_held and turn.given == given):
            if time.monotonic() > deadline or self._ended.is_set():
                return False
            time.sleep(_POLL_S)
        return True

    @property
    def is_stuck(self) -> bool:
        """Whether a thread is still at work though it was told to end."""
        return self._ended.is_set() and any(thread.is_alive() for thread in self._threads)

    def stop(self, timeout_s: float = 0.0) -> None:
        """Stop both threads and wait for what they are at: `timeout_s`, and a little at least."""
        self._end()
        deadline = time.monotonic() + max(timeout_s, _JOIN_S)
        for thread in self._threads:
            if thread.is_alive():
                thread.join(max(0.0, deadline - time.monotonic()))
        self._executor.shutdown(timeout_sec=_JOIN_S)

    def finish(self, timeout_s: float) -> None:
        """Work off what is queued, stop, and let the node publish what it held back.

        All that has `timeout_s`; a callback that takes longer fails the stage.
        """
        begun_s = time.monotonic()
        if self.failure is None and not self.wait_idle(timeout_s):
            log.warning("%s still had work after %.0f s", self.node.get_name(), timeout_s)
        self.stop(timeout_s - (time.monotonic() - begun_s))
        if self.is_stuck:  # nobody may use the node beside the thread that is still at work
            self._give_up_waiting(time.monotonic() - begun_s)
            return
        try:
            self.node.input_ended()
            self.node.let_go_of_waiting()
            self.node.report()
        except Exception as error:  # the edge: one stage's end must not keep the others from theirs
            self.failure = self.failure or error  # the first one is the cause
            log.exception("%s could not finish", self.node.get_name())
            self._tell(error)  # its account is closed and told all the same

    def _give_up_waiting(self, waited_s: float) -> None:
        text = f"{self.name} does not end within {waited_s:.0f} s; what it held back is lost"
        log.error("%s", text)
        self.failure = self.failure or StageStuck(text)


def finish_all(threads: list[NodeThread], timeout_s: float) -> None:
    """End nodes in the given order (the order data flows), then destroy them all."""
    for thread in threads:
        thread.finish(timeout_s)
    for thread in threads:
        if not thread.is_stuck:
            thread.node.close()
