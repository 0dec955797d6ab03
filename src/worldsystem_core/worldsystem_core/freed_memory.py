# SPDX-License-Identifier: Apache-2.0
"""Hands memory that was freed back to the system now and then.

Pictures, point maps and messages of a megabyte come and go among small things that stay, so that
the C library's heap becomes all holes: after eight minutes of the demo it held twice what was in
use, and more each minute.
"""

from __future__ import annotations

import ctypes
import logging
import threading
import time

EVERY_S = 20.0

log = logging.getLogger(__name__)
_started = threading.Lock()


def hand_back_freed_memory(every_s: float = EVERY_S) -> None:
    """Do so every `every_s` until the process ends; a second call changes nothing.

    Does nothing where the C library has no `malloc_trim` (it is glibc's).
    """
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except AttributeError:
        log.info("this C library has no malloc_trim: memory that was freed stays with the process")
        return
    if not _started.acquire(blocking=False):
        return
    arguments = (trim, every_s)
    threading.Thread(target=_go_on, args=arguments, name="freed memory", daemon=True).start()


def _go_on(trim: ctypes._NamedFuncPointer, every_s: float) -> None:
    while True:
        time.sleep(every_s)
        trim(0)
