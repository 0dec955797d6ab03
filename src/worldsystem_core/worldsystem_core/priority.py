# SPDX-License-Identifier: Apache-2.0
"""Which threads go first when the processors are short: tracking must not wait for meshing."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any
from weakref import ref

from worldsystem_core.handoff import Handoff


def lower_thread_priority(niceness: int) -> None:
    """Let the calling thread, and those it starts, yield to threads of lower `niceness` (0 to 19).

    On Linux niceness is a thread's own; elsewhere this does nothing.
    """
    if niceness and sys.platform.startswith("linux"):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), niceness)


def patience_s(niceness: int) -> float:
    """How long work of a thread waits for urgent work: not at all up to niceness 5, 0.3 s at 15."""
    return 0.03 * max(niceness - 5, 0)


_urgent: tuple[ref[Handoff[Any]], ...] = ()
_adding = threading.Lock()


def make_urgent(inbox: Handoff[Any]) -> None:
    """From now on threads that `give_way` let the reader of `inbox` catch up."""
    global _urgent  # replaced as a whole: it is read without the lock
    with _adding:
        _urgent = (*(known for known in _urgent if known() is not None), ref(inbox))


def paced() -> bool:
    """Whether pictures come as fast as they are taken, as those of a file do: nothing is late."""
    inboxes = (known() for known in _urgent)
    return any(inbox is not None and inbox.paced for inbox in inboxes)


def give_way(at_most_s: float) -> None:
    """Wait while something waits in an urgent inbox of this process, but no longer than told.

    Niceness shares out processors, not the interpreter's lock: who holds that, however nice, holds
    up the rest. Called between pieces of work by threads whose work can wait. An inbox that is
    filled as fast as it is read (a file) is never behind, and nobody waits for it.
    """
    deadline = time.monotonic() + at_most_s
    for inbox in _late():
        inbox.wait_empty(deadline - time.monotonic())


def behind() -> bool:
    """Whether something waits in an urgent inbox of this process, and will be late."""
    return any(True for _ in _late())


def _late() -> Iterator[Handoff[Any]]:
    for known in _urgent:
        inbox = known()
        if inbox is not None and len(inbox) and not inbox.paced:
            yield inbox
