# SPDX-License-Identifier: Apache-2.0
"""The CPU time of several threads together, of those that have ended too: it only grows."""

from __future__ import annotations

import threading
import time

_clock_of = getattr(time, "pthread_getcpuclockid", None)  # macOS has none


class ThreadTimes:
    """Threads join it by `include_this`; what each has used since it began counts, where the
    system tells that of another thread.

    Safe from any thread.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._clocks: dict[int, int] = {}  # of each thread, by its identity
        self._used_s: dict[int, float] = {}  # as last read, by the same
        self._ended_s = 0.0

    def include_this(self) -> None:
        """The calling thread counts from now on; cheap when it does already."""
        me = threading.get_ident()
        if me not in self._clocks and _clock_of is not None:
            clock = _clock_of(me)  # here, as that of a thread that has ended is undefined
            with self._lock:
                self._clocks[me], self._used_s[me] = clock, time.thread_time()

    def cpu_s(self) -> float:
        """What all of them have used so far; of one that has ended, when it was last asked for."""
        with self._lock:
            for thread, clock in list(self._clocks.items()):
                try:
                    self._used_s[thread] = time.clock_gettime(clock)
                except OSError:  # it has ended, and another may get its identity
                    self._ended_s += self._used_s.pop(thread)
                    del self._clocks[thread]
            return self._ended_s + sum(self._used_s.values())
