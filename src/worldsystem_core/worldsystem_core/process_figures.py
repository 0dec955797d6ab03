# SPDX-License-Identifier: Apache-2.0
"""What this process and the threads of a node have used so far, for `/diagnostics`."""

from __future__ import annotations

import ctypes
import os
import time
from pathlib import Path

_STATM = Path("/proc/self/statm")
_COUNTED_EVERY_S = 10.0
"""The C library walks through all of its free pieces to count what is not free."""


def process_figures(threads_cpu_s: float | None = None) -> dict[str, object]:
    """Process id, resident memory [MB], what the C library has handed out of it [MB] (0 where the
    system does not tell), CPU times [s].

    What is resident and was not handed out is libraries, and holes. `thread.cpu_s` is
    `threads_cpu_s`, of the threads in which a node works; by default that of the calling thread.
    """
    if threads_cpu_s is None:
        threads_cpu_s = time.thread_time()
    return {
        "process.pid": os.getpid(),
        "process.memory_mb": round(_resident_bytes() / 1e6, 1),
        "process.allocated_mb": round(_ALLOCATED.newest_bytes() / 1e6, 1),
        "process.cpu_s": round(time.process_time(), 2),
        "thread.cpu_s": round(threads_cpu_s, 2),
    }


def _resident_bytes() -> int:
    try:
        return int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0


class _MallInfo(ctypes.Structure):
    """`struct mallinfo2` of glibc 2.33 and later."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    )


class _Allocated:
    """What `malloc` has handed out and not got back, counted now and then."""

    def __init__(self) -> None:
        self._count = getattr(ctypes.CDLL(None), "mallinfo2", None)
        if self._count is not None:
            self._count.restype = _MallInfo
        self._counted_s, self._bytes = -_COUNTED_EVERY_S, 0

    def newest_bytes(self) -> int:
        now_s = time.monotonic()
        if self._count is not None and now_s - self._counted_s >= _COUNTED_EVERY_S:
            self._counted_s = now_s
            found = self._count()
            self._bytes = int(found.uordblks + found.hblkhd)
        return self._bytes


_ALLOCATED = _Allocated()
