# SPDX-License-Identifier: Apache-2.0
"""Which threads go first when the processors are short: tracking must not wait for meshing."""

from __future__ import annotations

import os
import sys
import threading


def lower_thread_priority(niceness: int) -> None:
    """Let the calling thread, and those it starts, yield to threads of lower `niceness` (0 to 19).

    On Linux niceness is a thread's own; elsewhere this does nothing.
    """
    if niceness and sys.platform.startswith("linux"):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), niceness)
