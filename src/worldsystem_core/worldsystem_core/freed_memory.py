# SPDX-License-Identifier: Apache-2.0
"""Keeps memory that was freed for what comes next, and hands it back to the system now and then.

Pictures, point maps and messages of a megabyte come and go among small things that stay, so that
the C library's heap becomes all holes: after eight minutes of the demo it held twice what was in
use, and more each minute.

Few heaps, too: by default up to eight a processor, a thread each, and what threads have freed in
one those of another cannot use: with sixteen the demo held 890 MB of which 480 were in use
(docs/decisions/066).

And holes must stay holes. NumPy asks the kernel for huge pages (2 MB) where an array of 4 MB or
more lies, which in our processes is the heap, and such a place keeps the wish. The kernel then
makes one page of 2 MB wherever a single one of 4 KB is in use: 145 MB after an hour of a soak.
"""

from __future__ import annotations

import ctypes
import logging
import os
import threading
import time
from contextlib import suppress

EVERY_S = 5.0
_PR_SET_THP_DISABLE = 41
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -2, -4, -8
_KEPT_AT_THE_END, _TAKEN_AT_ONCE = 1 << 30, 64 << 20
_PROCESSORS_PER_HEAP = 4

log = logging.getLogger(__name__)
_started = threading.Lock()


def keep_freed_memory() -> None:
    """From now on large arrays come from the heap, too, and what is freed there is used again.

    By default glibc asks the kernel for each large array and gives it back at once, which costs a
    page fault for each 4 KB. Does nothing where the C library has no `mallopt`. Call it before
    large arrays exist, and `hand_back_freed_memory` too.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:
        log.info("this C library has no mallopt: large arrays will cost more page faults")
        return
    mallopt(_M_MMAP_MAX, 0)
    mallopt(_M_TRIM_THRESHOLD, _KEPT_AT_THE_END)
    mallopt(_M_TOP_PAD, _TAKEN_AT_ONCE)


def hand_back_freed_memory(every_s: float = EVERY_S) -> None:
    """Hand freed memory back to the system every `every_s` until the process ends, in a thread.

    From now on the process also has few heaps and no huge pages. Does nothing when called again,
    nor where the C library has no `malloc_trim` (it is glibc's).
    """
    library = ctypes.CDLL(None)
    try:
        trim, mallopt = library.malloc_trim, library.mallopt
    except AttributeError:
        log.info("this C library has no malloc_trim: memory that was freed stays with the process")
        return
    if not _started.acquire(blocking=False):
        return
    mallopt(_M_ARENA_MAX, max(1, (os.cpu_count() or 1) // _PROCESSORS_PER_HEAP))
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
