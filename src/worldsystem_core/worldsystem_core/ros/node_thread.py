# SPDX-License-Identifier: Apache-2.0
"""Nodes in one process: each spins in its own thread, and all end in the order the data flows."""

from __future__ import annotations

import logging
import threading
import time

from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor

from worldsystem_core.priority import lower_thread_priority
from worldsystem_core.ros.stage_node import StageNode

log = logging.getLogger(__name__)

_POLL_S = 0.02
_JOIN_S = 5.0


class NodeThread:
    """One node, one executor, one thread; rclpy's events executor would deadlock here."""

    def __init__(self, node: StageNode) -> None:
        self.node = node
        self.failure: BaseException | None = None
        self._executor = SingleThreadedExecutor(context=node.context)
        self._executor.add_node(node)
        self._thread = threading.Thread(target=self._spin, name=node.get_name(), daemon=True)

    def start(self) -> None:
        self._thread.start()

    def _spin(self) -> None:
        lower_thread_priority(self.node.niceness)
        try:
            self._executor.spin()
        except ExternalShutdownException:
            pass
        except Exception as error:  # the edge of the thread: the stage stops and says why
            self.failure = error
            log.exception("%s stopped", self.node.get_name())
            self._tell(error)

    def _tell(self, error: Exception) -> None:
        try:
            self.node.gave_up(error)
        except Exception:  # the same edge: what remains to be said is in the log
            log.exception("%s could not say that it stopped", self.node.get_name())

    def wait_idle(self, timeout_s: float) -> bool:
        """Wait until the node has worked off its inboxes; False after `timeout_s`."""
        deadline = time.monotonic() + timeout_s
        while not self.node.idle:
            if time.monotonic() > deadline or not self._thread.is_alive():
                return False
            time.sleep(_POLL_S)
        return True

    def stop(self) -> None:
        """Stop spinning and wait for the thread."""
        self._executor.shutdown(timeout_sec=_JOIN_S)
        self._thread.join(_JOIN_S)

    def finish(self, timeout_s: float) -> None:
        """Work off what is queued, stop, and let the node publish what it held back."""
        if not self.wait_idle(timeout_s):
            log.warning("%s still had work after %.0f s", self.node.get_name(), timeout_s)
        self.stop()
        try:
            self.node.input_ended()
            self.node.ledger.drop_in_flight("shutdown")
            self.node.report()
        except Exception as error:  # the edge: one stage's end must not keep the others from theirs
            self.failure = error
            log.exception("%s could not finish", self.node.get_name())


def finish_all(threads: list[NodeThread], timeout_s: float) -> None:
    """End nodes in the given order (the order data flows), then destroy them all."""
    for thread in threads:
        thread.finish(timeout_s)
    for thread in threads:
        thread.node.close()
