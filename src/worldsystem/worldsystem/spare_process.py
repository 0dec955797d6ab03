# SPDX-License-Identifier: Apache-2.0
"""Processes that have imported every stage and wait to become the one that dies.

Of the seconds that a stage is away most go into imports, which a machine under load does slowly.
It is no fork: a process that has DDS and numerical libraries in it cannot be forked safely.
"""

from __future__ import annotations

import importlib
import json
import logging
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress

from worldsystem.graph import STAGES, Stage
from worldsystem_core.child_process import end_with_parent, name_process
from worldsystem_core.errors import WorldSystemError

log = logging.getLogger(__name__)

LOADED_LATER = (
    "worldsystem_segment.precompile:warm_up_once",
    "worldsystem_slam3r.session.backend",
    "worldsystem_slam3r.precompile:warm_up_once",
    "rerun",
    "foxglove",
)
"""What stages load only as they are made, what takes longest first: modules, and functions in them.
A process in reserve loads it when all imports are done, while nobody needs it."""
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
    gets one that is half made, which goes straight to it.
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
        alive = [spare for spare in self._processes if spare.alive]
        if len(alive) < len(self._processes):  # what ended it may end the next one, too
            self._due_s = now_s + self.LATER_S
        self._keep_those(alive)
        ready = all(spare.ready for spare in self._processes)
        if ready and len(self._processes) < self.COUNT and now_s >= self._due_s:
            self._make_one(now_s)

    def _make_one(self, now_s: float) -> None:
        try:
            self._processes.append(SpareProcess())
        except OSError as error:
            log.warning("no process in reserve: %s", error)
            self._due_s = now_s + self.LATER_S

    def take(self) -> SpareProcess | None:
        """One in reserve, rather one that is ready; from now on it is yours.

        When stages die one after the other, the next is not put off each time.
        """
        if self._due_s is not None and self._due_s <= self._now_s:
            self._due_s = None
        for spare in sorted(self._processes, key=lambda spare: not spare.ready):
            if spare.alive:
                self._processes.remove(spare)
                return spare
        return None

    def end(self) -> None:
        """End those that were not needed."""
        self._keep_those([])

    def _keep_those(self, kept: list[SpareProcess]) -> None:
        for spare in self._processes:
            if spare not in kept:
                spare.end()
        self._processes = kept


def main() -> None:
    """Import, say so, and run the stage that is told; or end when the line is closed.

    One that is told before it is ready imports nothing more but what that stage needs.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    with socket.socket(fileno=int(sys.argv[1])) as line:
        load_until_told(line, [stage.module for stage in STAGES])
        with suppress(OSError):  # told already, and nobody listens
            line.sendall(b"\n")
        load_until_told(line, LOADED_LATER)
        told = ""
        with suppress(OSError):  # whoever made us ends
            told = line.makefile().readline()
    if not told:
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)
    name, module, arguments = json.loads(told)
    name_process(name)
    sys.argv = [name, *arguments]
    importlib.import_module(module).main()


def load_until_told(line: socket.socket, names: Iterable[str]) -> None:
    """Load one after the other, and nothing more once a stage is told on `line`."""
    for name in names:
        if select.select([line], [], [], 0.0)[0]:
            return
        with suppress(ImportError, WorldSystemError):  # told by the stage that needs it
            load(name)


def load(name: str) -> None:
    """Import a module, or call a function of it, as `package.module:function`."""
    module, _, function = name.partition(":")
    loaded = importlib.import_module(module)
    if function:
        getattr(loaded, function)()


if __name__ == "__main__":
    main()
