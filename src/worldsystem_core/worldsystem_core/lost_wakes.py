# SPDX-License-Identifier: Apache-2.0
"""Wakes threads that sleep on a lock in shared memory which is free.

Fast DDS guards its shared-memory ports by ordinary locks of the C library. Who is killed after
releasing one, and before the system call that wakes the next, leaves that one asleep for good: a
node that hears nothing any more, or stands still while it publishes (docs/decisions/073).

Such a thread sleeps while the lock's word differs from the one that it went to sleep on, which on
a living lock lasts microseconds. A signal makes it look again. Timed waits end by themselves, and
are left alone: to them a signal is an error.
"""

from __future__ import annotations

import ctypes
import logging
import os
import platform
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

EVERY_S, AGAIN_S = 0.7, 0.2
"""A stage tells of itself each second: it shall not be silent for two."""
_FUTEX_CALL = {"x86_64": 202, "aarch64": 98}
_WAITS = (0, 9)  # FUTEX_WAIT, FUTEX_WAIT_BITSET, on memory that processes share
_CLOCK = 256  # FUTEX_CLOCK_REALTIME: by which clock a wait is timed
_SIGNAL = signal.SIGURG  # ignored by default, sent by hardly anyone

log = logging.getLogger(__name__)
_started = threading.Lock()


@dataclass(frozen=True)
class Sleep:
    """A thread that waits without limit, until the 32-bit word at `address` is not `word`."""

    thread: int
    address: int
    word: int


def watch_for_lost_wakes(every_s: float = EVERY_S) -> None:
    """Look every `every_s` for threads of this process that nobody will wake, until it ends.

    Call it in the main thread, which alone may say what signals do; elsewhere, where the system
    does not tell what threads wait for, and a second time it does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    try:
        overslept()
    except (KeyError, OSError) as error:  # another processor, another system, a hidden /proc
        log.info("who sleeps on a lock that is free is not looked for: %r", error)
        return
    if not _started.acquire(blocking=False):
        return
    signal.signal(_SIGNAL, lambda *_: None)
    signal.siginterrupt(_SIGNAL, False)  # the kernel takes up again what the signal interrupted
    threading.Thread(target=_go_on, args=(every_s,), name="lost wakes", daemon=True).start()


def overslept() -> set[Sleep]:
    """Threads of this process that sleep although their word has changed. On a living lock that is
    so for microseconds: only one that is found twice has nobody to wake it.

    Raises `KeyError` for an unknown processor, `OSError` where `/proc` does not tell.
    """
    with open("/proc/self/mem", "rb", buffering=0) as memory:
        return {sleep for sleep in _sleeps() if _word(memory.fileno(), sleep) != sleep.word}


def wake(thread: int) -> None:
    """Have the thread with this number of the kernel's look again at what it waits for."""
    ctypes.CDLL(None).tgkill(os.getpid(), thread, int(_SIGNAL))


def _go_on(every_s: float) -> None:
    while True:
        time.sleep(every_s)
        with suppress(OSError):  # as while this process has no file left to open
            _wake_those_overslept()


def _wake_those_overslept() -> None:
    seen = overslept()
    if not seen:
        return
    time.sleep(AGAIN_S)
    for sleep in seen & overslept():
        log.warning(
            "thread %d slept on a lock in shared memory that is free, as after a process was "
            "killed: woken",
            sleep.thread,
        )
        wake(sleep.thread)


def _sleeps() -> Iterator[Sleep]:
    """Threads that wait without limit on memory which processes may share."""
    call = _FUTEX_CALL[platform.machine()]
    for thread in os.listdir("/proc/self/task"):
        try:
            with open(f"/proc/self/task/{thread}/syscall", "rb", buffering=0) as file:
                fields = file.read().split()
        except OSError:  # it has ended
            continue
        if len(fields) < 5 or int(fields[0]) != call:
            continue
        address, kind, word, limit = (int(field, 16) for field in fields[1:5])
        if kind & ~_CLOCK in _WAITS and not limit:
            yield Sleep(int(thread), address, word & 0xFFFFFFFF)


def _word(memory: int, sleep: Sleep) -> int:
    try:
        return int.from_bytes(os.pread(memory, 4, sleep.address), "little")
    except OSError:  # unmapped meanwhile: nobody sleeps there any more
        return sleep.word
