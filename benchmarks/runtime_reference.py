# SPDX-License-Identifier: Apache-2.0
"""A picture handed on by reference inside one process, as the stages of a run do it."""

from __future__ import annotations

import threading
import time
from types import TracebackType

import numpy as np
from runtime_wakes import NoSettings

from worldsystem_core.frames import Frame
from worldsystem_core.ros import topics
from worldsystem_core.ros.node_thread import NodeThread
from worldsystem_core.ros.reference_topic import ReferencePublisher
from worldsystem_core.ros.stage_node import StageNode

_TIMEOUT_S = 10.0


class _Reader(StageNode):
    """A stage that notes when a picture came, and which."""

    def __init__(self) -> None:
        super().__init__("reader", NoSettings)
        self.came_ns = 0
        self.frame: Frame | None = None
        self.got = threading.Event()
        self.listen(topics.IMAGE, self._take)

    def _take(self, frame: Frame) -> None:
        self.came_ns = time.perf_counter_ns()
        self.frame = frame
        self.got.set()


class ByReference:
    """A stage that publishes in the caller's thread and one that listens in threads of its own."""

    def __init__(self) -> None:
        self._writer, self._reader = StageNode("writer", NoSettings), _Reader()
        self._out: ReferencePublisher[Frame] = self._writer.advertise(topics.IMAGE, outside=False)
        self._thread = NodeThread(self._reader)

    def __enter__(self) -> ByReference:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._thread.stop()
        self._reader.close()
        self._writer.close()

    def latencies_us(
        self, width: int, height: int, pictures: int, *, pause_s: float = 0.0
    ) -> list[float]:
        """From the call of `publish` to the callback's first line [us], `pause_s` between two.

        Raises `AssertionError` when the callback was not given the very object, memory included.
        """
        frame = Frame(id=0, stamp_ns=0, rgb=np.zeros((height, width, 3), np.uint8))
        return [self._latency_us(frame, pause_s) for _ in range(pictures)]

    def _latency_us(self, frame: Frame, pause_s: float) -> float:
        self._reader.got.clear()
        begun_ns = time.perf_counter_ns()
        self._out.publish(frame)
        if not self._reader.got.wait(_TIMEOUT_S):
            raise TimeoutError("no picture arrived")
        got = self._reader.frame
        assert got is frame, "another object arrived"
        assert got.rgb.ctypes.data == frame.rgb.ctypes.data, "the pixels were copied"
        time.sleep(pause_s)
        return (self._reader.came_ns - begun_ns) / 1e3
