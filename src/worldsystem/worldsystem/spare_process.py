# SPDX-License-Identifier: Apache-2.0
"""Processes that have imported every stage and wait to become the one that dies.

Of the seconds that a stage is away most go into imports, which a machine under load does slowly.
It is no fork: a process that has DDS and numerical libraries in it cannot be forked safely.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress

from worldsystem.graph import STAGES, Stage

_PR_SET_NAME, _PR_SET_PDEATHSIG = 15, 1
_END_S = 5.0


class SpareProcess:
    """Started at once; `ready` when its imports are done."""

    def __init__(self) -> None:
        self._line, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "worldsystem.spare_process", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is for the one who ends it
                preexec_fn=end_with_parent,
            )

    @property
    def ready(self) -> bool:
        """Whether it waits for its stage."""
        return self.alive and bool(select.select([self._line], [], [], 0.0)[0])

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def become(self, stage: Stage, arguments: Sequence[str]) -> subprocess.Popen[bytes]:
        """Have it run `stage` with a command line of these `arguments`; the process is yours."""
        told = json.dumps([stage.name, stage.module, list(arguments)])
        with self._line:
            self._line.sendall(told.encode() + b"\n")
        return self._process

    def end(self) -> None:
        """End one that became nothing."""
        self._line.close()
        self._process.kill()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_END_S)


class Spares:
    """Processes in reserve, made one after the other, and some time after one was taken.

    The delay leaves the processors to the stage that comes back. One that dies while none is ready
    starts as it did at first.
    """

    LATER_S = 10.0
    COUNT = 2
    """Two stages may die within seconds of each other, as one does from what killed the other."""

    def __init__(self) -> None:
        self._processes: list[SpareProcess] = []
        self._now_s = 0.0
        self._due_s: float | None = None

    def keep(self, now_s: float) -> None:
        """Make one when it is time; to be called now and then, once all stages run."""
        self._now_s = now_s
        if self._due_s is None:
            self._due_s = now_s + self.LATER_S
        self._keep_those([spare for spare in self._processes if spare.alive])
        ready = all(spare.ready for spare in self._processes)
        if ready and len(self._processes) < self.COUNT and now_s >= self._due_s:
            self._processes.append(SpareProcess())

    def take(self) -> SpareProcess | None:
        """One in reserve that is ready; from now on it is yours.

        If none is, one that is half made ends: the stage that now starts by itself has the
        processors. When stages die one after the other, the next is not put off each time.
        """
        if self._due_s is not None and self._due_s <= self._now_s:
            self._due_s = None
        for spare in self._processes:
            if spare.ready:
                self._processes.remove(spare)
                return spare
        if self._processes:
            self.end()
            self._due_s = None
        return None

    def end(self) -> None:
        """End those that were not needed."""
        self._keep_those([])

    def _keep_those(self, kept: list[SpareProcess]) -> None:
        for spare in self._processes:
            if spare not in kept:
                spare.end()
        self._processes = kept


def end_with_parent() -> None:
    """Have the kernel interrupt this process when its parent dies, however it dies."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGINT)


def main() -> None:
    """Import, say so, and run the stage that is told; or end when the line is closed."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    with socket.socket(fileno=int(sys.argv[1])) as line:
        for stage in STAGES:
            with suppress(ImportError):  # what is missing is told by the stage that needs it
                importlib.import_module(stage.module)
        with suppress(OSError):  # told already, and nobody listens
            line.sendall(b"\n")
        told = line.makefile().readline()
    if not told:
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)
    name, module, arguments = json.loads(told)
    ctypes.CDLL(None).prctl(_PR_SET_NAME, name.encode())  # as `top` shows it
    sys.argv = [name, *arguments]
    importlib.import_module(module).main()


if __name__ == "__main__":
    main()
