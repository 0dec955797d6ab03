# SPDX-License-Identifier: Apache-2.0
"""Keyframes of a process that died, on their way back into the volume."""

from __future__ import annotations

import logging
import time
from collections import deque
from dataclasses import replace

from worldsystem_mesh.archived_view import ArchivedView
from worldsystem_mesh.forgetting import Forgetting
from worldsystem_mesh.page_file import PagingFailed
from worldsystem_mesh.refusion import Refusion
from worldsystem_mesh.view_archive import ViewArchive
from worldsystem_mesh.view_store import ViewStore
from worldsystem_mesh.volume import BlockVolume

log = logging.getLogger(__name__)


class Restoration:
    """They are put into the store as if they had moved, so that their blocks are made anew, the
    nearest first. Those for which others stand in leave it once all is done: their share stays.
    """

    def __init__(
        self,
        archive: ViewArchive,
        volume: BlockVolume,
        views: ViewStore,
        refusion: Refusion,
        forgetting: Forgetting,
    ) -> None:
        self._archive = archive
        self._volume = volume
        self._views = views
        self._refusion = refusion
        self._forgetting = forgetting
        self._coming: deque[ArchivedView] = deque(by_life(archive.kept()))
        self._leaving: dict[int, int] = {}

    def bring_back(self, end: float) -> None:
        """Put keyframes into the store until all are there or the clock says `end`."""
        while self._coming and time.perf_counter() < end:
            self._put(self._coming.popleft())

    def go_on(self, end: float) -> bool:
        """Work until the clock says `end`; whether all is done."""
        self.bring_back(end)
        if not self._coming:
            self._refusion.work(end - time.perf_counter())
        if self._coming or not self._refusion.is_idle:
            return False
        for number, heir in self._leaving.items():
            self._refusion.remove(number, heir)
        return True

    def leave_later(self, id: int, heir: int) -> None:
        """Keyframe `heir` stands in for this one from now on, whose share is still to come."""
        for other, its_heir in self._leaving.items():
            if its_heir == id:
                self._leaving[other] = heir
        self._leaving[id] = heir

    def heir_moved(self, heir: int) -> None:
        """What this keyframe stands in for is not where it belongs any more."""
        left = [number for number, its_heir in self._leaving.items() if its_heir == heir]
        for number in left:
            del self._leaving[number]
            self._refusion.remove(number)

    def _put(self, kept: ArchivedView) -> None:
        try:
            whole = self._archive.whole(kept)
        except PagingFailed as error:
            log.warning("a keyframe of before is left out: %s", error)
            self._archive.lose(kept.view.order)
            return
        order, heir = kept.view.order, kept.heir
        if whole.id in self._views:  # a reconstruction that died may give an id again
            whole = replace(whole, id=-order)
        view = self._volume.touch(whole)
        self._views.put(view)
        self._refusion.note_added(view, is_fused=False)
        self._forgetting.note(view.band, order)
        if heir is not None:
            self._leaving[view.id] = heir
            self._archive.note_left(order, heir, view.band)


def by_life(kept: list[ArchivedView]) -> list[ArchivedView]:
    """First those that are told again, which keep their ids, then those that are not."""
    return sorted(kept, key=lambda one: one.heir is not None)
