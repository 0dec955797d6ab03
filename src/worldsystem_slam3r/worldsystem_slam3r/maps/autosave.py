# SPDX-License-Identifier: Apache-2.0
"""Saves a map beside the work: one save at a time, the newest content wins."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path

from worldsystem_core.errors import MapError
from worldsystem_core.newest_job import NewestJob
from worldsystem_slam3r.maps.claim import PATIENCE_S, MapClaim
from worldsystem_slam3r.maps.content import MapContent
from worldsystem_slam3r.maps.folder import generation_of

log = logging.getLogger(__name__)

STOP_S = 30.0


class MapSaver:
    """A thread that writes what it is given; `failure` is the last save's error, if it failed.

    No other process may write there meanwhile: where one does, at the start, that is a `MapError`.
    Where no folder was there to be had, and another run has saved there since, saves fail: they
    would replace a map that this one does not go on from.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._claim = MapClaim(folder)
        self._claim.take(PATIENCE_S)
        self._begun_from = generation_of(folder)
        self.failure = ""
        self.saves = 0
        self._jobs = NewestJob("map saver")

    def save(self, content: MapContent, saved_ns: int) -> None:
        """Have it written soon; content that still waits is replaced."""
        self._jobs.do(partial(self._write, content, saved_ns))

    def close(self) -> None:
        """Write what waits, then end; waits at most half a minute."""
        if self._jobs.close(STOP_S):
            self._claim.release()

    def _write(self, content: MapContent, saved_ns: int) -> None:
        try:
            content.save(self.folder, saved_ns, begun_from=self._begun_from)
            self._claim.take()  # had already, unless it is the first save there
        except MapError as error:
            if str(error) != self.failure:
                log.error("the map was not saved: %s", error)
            self.failure = str(error)
            return
        self.failure = ""
        self.saves += 1
