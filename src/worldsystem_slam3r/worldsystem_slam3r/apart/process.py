# SPDX-License-Identifier: Apache-2.0
"""Processes for a back-end: one at once, and one in reserve for when that dies.

Most of the seconds in which a live run has no reconstruction go into imports and kernels, which a
machine under load reads slowly. One in reserve has them loaded.
"""

from __future__ import annotations

import logging
import socket
import subprocess
import sys
from contextlib import suppress

from worldsystem_slam3r.apart.channel import Channel, ChannelClosed

log = logging.getLogger(__name__)

_END_S = 10.0


class WorkerProcess:
    """A process that runs `worker`, at the other end of `channel`, which ends it when closed.

    A side that takes nothing for `patience_s` counts as gone. An `OSError` says that there is none.
    """

    def __init__(self, patience_s: float) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "worldsystem_slam3r.apart.worker", str(theirs.fileno())],
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    process_group=0,  # what ends a run's group is for the run, which ends us
                )
            except BaseException:
                ours.close()
                raise
        self.channel = Channel(ours, patience_s)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def kill(self) -> None:
        self._process.kill()

    def wait(self, limit_s: float) -> int | None:
        """Its exit code; None when it goes on for longer."""
        with suppress(subprocess.TimeoutExpired):
            return self._process.wait(limit_s)
        return None

    def close(self) -> None:
        """Close the channel, which ends it; one that does not end is killed."""
        self.channel.close()
        if self.wait(_END_S) is None:
            self.kill()
            self.wait(_END_S)


class Reserve:
    """One process that has loaded what back-end `name` needs, made `LATER_S` after the start, and
    after the one before was taken: until then the processors are for those at work."""

    LATER_S = 10.0

    def __init__(self, name: str, patience_s: float) -> None:
        self._name, self._patience_s = name, patience_s
        self._process: WorkerProcess | None = None
        self._due_s: float | None = None

    @property
    def pid(self) -> int | None:
        """The process that waits, if one does."""
        return self._process.pid if self._process is not None and self._process.alive else None

    def keep(self, now_s: float) -> None:
        """Make one when it is time; to be called now and then."""
        if self._process is not None and not self._process.alive:
            self.end()  # what ended it may end the next one, too
        if self._due_s is None:
            self._due_s = now_s + self.LATER_S
        if self._process is None and now_s >= self._due_s:
            self._make_one()

    def _make_one(self) -> None:
        self._due_s = None
        try:
            self._process = WorkerProcess(self._patience_s)
            self._process.channel.send("load", self._name)
        except (OSError, ChannelClosed) as error:
            log.warning("no process of the reconstruction in reserve: %s", error)

    def take(self) -> WorkerProcess | None:
        """The one in reserve, which is yours from now on, also one that is still loading."""
        taken, self._process, self._due_s = self._process, None, None
        if taken is not None and not taken.alive:
            taken.close()
            return None
        return taken

    def end(self) -> None:
        """End one that was not needed."""
        self._due_s = None
        if self._process is not None:
            self._process.kill()
            self._process.close()
            self._process = None
