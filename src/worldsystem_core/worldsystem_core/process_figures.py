# SPDX-License-Identifier: Apache-2.0
"""What this process and this thread have used so far, for `/diagnostics`."""

from __future__ import annotations

import os
import time
from pathlib import Path

_STATM = Path("/proc/self/statm")


def process_figures() -> dict[str, object]:
    """Process id, resident memory [MB] (0 where the system does not tell), CPU times [s].

    `thread.cpu_s` is that of the calling thread, in which a node works.
    """
    return {
        "process.pid": os.getpid(),
        "process.memory_mb": round(_resident_bytes() / 1e6, 1),
        "process.cpu_s": round(time.process_time(), 2),
        "thread.cpu_s": round(time.thread_time(), 2),
    }


def _resident_bytes() -> int:
    try:
        return int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0
