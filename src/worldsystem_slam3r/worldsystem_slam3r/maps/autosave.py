# SPDX-License-Identifier: Apache-2.0
"""Saves a map beside the work: one save at a time, the newest content wins."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

from worldsystem_core.errors import MapError
from worldsystem_slam3r.maps.claim import PATIENCE_S, MapClaim
from worldsystem_slam3r.maps.content import MapContent
from worldsystem_slam3r.maps.folder import Manifest, generation_of

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
        self._changed = threading.Condition()
        self._next: tuple[MapContent, int] | None = None
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="map saver", daemon=True)
        self._thread.start()

    def save(self, content: MapContent, saved_ns: int) -> None:
        """Have it written soon; content that still waits is replaced."""
        with self._changed:
            self._next = (content, saved_ns)
            self._changed.notify()

    def close(self) -> None:
        """Write what waits, then end; waits at most half a minute."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join(timeout=STOP_S)
        if not self._thread.is_alive():
            self._claim.release()

    def _run(self) -> None:
        while True:
            with self._changed:
                while self._next is None and not self._stopping:
                    self._changed.wait(timeout=1.0)
                job, self._next = self._next, None
            if job is None:
                return
            self._write(*job)

    def _write(self, content: MapContent, saved_ns: int) -> Manifest | None:
        try:
            manifest = content.save(self.folder, saved_ns, begun_from=self._begun_from)
            self._claim.take()  # had already, unless it is the first save there
        except MapError as error:
            if str(error) != self.failure:
                log.error("the map was not saved: %s", error)
            self.failure = str(error)
            return None
        self.failure = ""
        self.saves += 1
        return manifest
