# SPDX-License-Identifier: Apache-2.0
"""Keeps the objects of a map saved beside the work."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path

from worldsystem_core.errors import MapError
from worldsystem_core.newest_job import NewestJob
from worldsystem_segment.objects.object_file import write_objects

log = logging.getLogger(__name__)

WRITE_S, STOP_S = 5.0, 30.0


class ObjectSaver:
    """Writes into `folder`, in a thread: a disk that takes seconds holds up no keyframe.

    `failure` is why the last write failed; empty when it did not.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._jobs = NewestJob("objects saver")
        self.failure = ""

    def save(self, packed: bytes) -> None:
        """Have it written soon; what still waits is replaced."""
        self._jobs.do(partial(self._write, packed))

    def settle(self, limit_s: float = WRITE_S) -> bool:
        """Wait until all is written, so long at most; whether that is so."""
        return self._jobs.settle(limit_s)

    def close(self) -> None:
        """Write what waits, then end."""
        self._jobs.close(STOP_S)

    def _write(self, packed: bytes) -> None:
        try:
            write_objects(packed, self._folder)
        except MapError as error:
            if str(error) != self.failure:
                log.error("%s", error)
            self.failure = str(error)
        else:
            self.failure = ""
