# SPDX-License-Identifier: Apache-2.0
"""Child processes that do not outlive their parent (a `preexec_fn` of `Popen` each), and names.

The kernel takes the thread that makes the child for the parent: it must live as long as the child.
A child that does part of a stage's work gets a group of its own (`process_group=0`), so that Ctrl-C
is not for it, but stays in the stage's session: Linux may share out processors between sessions
before any niceness counts (docs/decisions/075).
"""

from __future__ import annotations

import ctypes
import signal

_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15


def end_with_parent() -> None:
    """Have the kernel interrupt this process when its parent dies, however it dies.

    A script's shell has what it starts in the background ignore interrupts, and its children too:
    this one heeds them again.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGINT)


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent dies, however it dies."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def name_process(name: str) -> None:
    """Have `top` and /proc/PID/comm show this name, of up to 15 bytes; by the main thread."""
    ctypes.CDLL(None).prctl(_PR_SET_NAME, name.encode())
