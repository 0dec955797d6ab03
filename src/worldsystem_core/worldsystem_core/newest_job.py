# SPDX-License-Identifier: Apache-2.0
"""Work that may wait for a disk, done beside a stage's own: the newest of it counts."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

log = logging.getLogger(__name__)

_LOOK_S = 1.0


class NewestJob:
    """A thread that does what it was given last; a job that still waits is replaced by the next.

    The thread begins with the first job. A job's own errors are its own: one that gets out is
    logged, and the next is done all the same.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._changed = threading.Condition()
        self._next: Callable[[], None] | None = None
        self._at_work = self._stopping = False
        self._thread: threading.Thread | None = None

    def do(self, job: Callable[[], None]) -> None:
        """Have it done soon; after `close` nothing is."""
        with self._changed:
            if self._stopping:
                return
            self._next = job
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def settle(self, limit_s: float) -> bool:
        """Wait until nothing is left to be done, so long at most; whether that is so."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._at_work and self._next is None, limit_s)

    def close(self, limit_s: float) -> bool:
        """Do what waits, then end; False where that takes longer."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        if self._thread is None:
            return True
        self._thread.join(limit_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while (job := self._taken()) is not None:
            try:
                job()
            except Exception:  # the edge of the thread
                log.exception("%s goes on", self._name)
            with self._changed:
                self._at_work = False
                self._changed.notify_all()

    def _taken(self) -> Callable[[], None] | None:
        """The next job, once there is one; None at the end."""
        with self._changed:
            while self._next is None and not self._stopping:
                self._changed.wait(timeout=_LOOK_S)
            job, self._next = self._next, None
            self._at_work = job is not None
            return job
