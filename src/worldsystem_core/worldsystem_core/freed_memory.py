# SPDX-License-Identifier: Apache-2.0
"""Hands memory that was freed back to the system now and then.

Pictures, point maps and messages of a megabyte come and go among small things that stay, so that
the C library's heap becomes all holes: after eight minutes of the demo it held twice what was in
use, and more each minute.

Holes must stay holes, too. NumPy asks the kernel for huge pages (2 MB) where an array of 4 MB or
more lies, which in our processes is the heap, and such a place keeps the wish. The kernel then
makes one page of 2 MB wherever a single one of 4 KB is in use: 145 MB after an hour of a soak.
"""

from __future__ import annotations

import ctypes
import logging
import threading
import time
from contextlib import suppress

EVERY_S = 20.0
_PR_SET_THP_DISABLE = 41

log = logging.getLogger(__name__)
_started = threading.Lock()


def hand_back_freed_memory(every_s: float = EVERY_S) -> None:
    """Do so every `every_s` until the process ends, and have no huge pages from now on; a second
    call changes nothing.

    Does nothing where the C library has no `malloc_trim` (it is glibc's).
    """
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except AttributeError:
        log.info("this C library has no malloc_trim: memory that was freed stays with the process")
        return
    if not _started.acquire(blocking=False):
        return
    _forgo_huge_pages()
    arguments = (trim, every_s)
    threading.Thread(target=_go_on, args=arguments, name="freed memory", daemon=True).start()


def _forgo_huge_pages() -> None:
    """For this process and those that it starts; a kernel that knows no such wish makes none."""
    with suppress(AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_THP_DISABLE, 1, 0, 0, 0)


def _go_on(trim: ctypes._NamedFuncPointer, every_s: float) -> None:
    while True:
        time.sleep(every_s)
        trim(0)
