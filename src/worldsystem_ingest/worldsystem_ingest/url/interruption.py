# SPDX-License-Identifier: Apache-2.0
"""Ending a call into FFmpeg that waits for the network.

FFmpeg asks ten times a second whether to go on, and PyAV answers by the clock alone: a time-out
that was set before. Its callback reads `time.monotonic` from the module `av.container.core`, in the
thread that waits. There we put a clock that runs away for a thread whose caller has had enough.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import av.container.core

_AGES_S = 1e9
_thread = threading.local()


@contextlib.contextmanager
def interruptible(had_enough: Callable[[], bool]) -> Iterator[None]:
    """FFmpeg's reads in this thread fail within 0.2 s once `had_enough()`; needs a time-out given.

    Looking up a host name is the operating system's and cannot be ended. Not to be nested.
    """
    av.container.core.time = _CLOCK
    _thread.had_enough, _thread.ahead_s = had_enough, 0.0
    try:
        yield
    finally:
        _thread.had_enough = None


class _Clock:
    """The module `time` for PyAV; its clock jumps ahead at each look after `had_enough()`."""

    def monotonic(self) -> float:
        had_enough = getattr(_thread, "had_enough", None)
        if had_enough is None:
            return time.monotonic()
        if had_enough():
            _thread.ahead_s += _AGES_S
        return time.monotonic() + float(_thread.ahead_s)

    def __getattr__(self, name: str) -> Any:  # whatever else PyAV may want of `time`
        return getattr(time, name)


_CLOCK = _Clock()
