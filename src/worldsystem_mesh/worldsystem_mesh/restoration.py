# SPDX-License-Identifier: Apache-2.0
"""Keyframes of a process that died, on their way back into the volume."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace

from worldsystem_core.reconstruction import ScaleState
from worldsystem_mesh.archived_view import ArchivedView, grown
from worldsystem_mesh.forgetting import Forgetting
from worldsystem_mesh.page_file import PagingFailed
from worldsystem_mesh.refusion import Refusion
from worldsystem_mesh.view_archive import ViewArchive
from worldsystem_mesh.view_store import ViewStore
from worldsystem_mesh.volume import BlockVolume

log = logging.getLogger(__name__)


class Restoration:
    """Puts archived keyframes into the store as if they had moved, so that their blocks are made
    anew, the nearest first.

    A keyframe for which another one stands in leaves the store again once all are fused; its share
    of the surface stays. `on_lost` is called with the id of a damaged keyframe, unless another one
    stands in for it; `alive` is called after each keyframe of `bring_back`, which takes long.
    """

    def __init__(
        self,
        archive: ViewArchive,
        volume: BlockVolume,
        views: ViewStore,
        refusion: Refusion,
        forgetting: Forgetting,
        on_lost: Callable[[int], None],
        alive: Callable[[], None],
    ) -> None:
        self._archive = archive
        self._volume = volume
        self._views = views
        self._refusion = refusion
        self._forgetting = forgetting
        self._on_lost = on_lost
        self._alive = alive
        kept = archive.kept()
        self._live = deque(one for one in kept if one.heir is None)
        self._left = {one.view.order: one for one in kept if one.heir is not None}
        self._leaving: dict[int, tuple[int, int]] = {}

    def bring_back(self) -> None:
        """Put all that nobody stands in for into the store: what follows is about them."""
        while self._live:
            self._put(self._live.popleft())
            self._alive()

    def go_on(self, end: float) -> bool:
        """Work until the clock says `end`; whether all is done."""
        while (self._live or self._left) and time.perf_counter() < end:
            self._put(self._live.popleft() if self._live else self._next_left())
        if self._live or self._left:
            return False
        self._refusion.work(end - time.perf_counter())
        if not self._refusion.is_idle:
            return False
        for number in list(self._leaving):
            self._let_leave(number)
        return True

    def leave_later(self, id: int, order: int, heir: int) -> None:
        """Keyframe `heir` stands in for this one from now on, whose share is still to come."""
        for other, kept in self._left.items():
            if kept.heir == id:
                self._left[other] = replace(kept, heir=heir)
        for other_id, (other, its_heir) in self._leaving.items():
            if its_heir == id:
                self._leaving[other_id] = other, heir
        self._leaving[id] = order, heir

    def heir_moved(self, heir: int) -> None:
        """What this keyframe stands in for is not where it belongs any more."""
        self._left = {order: kept for order, kept in self._left.items() if kept.heir != heir}
        going = [number for number, (_, its_heir) in self._leaving.items() if its_heir == heir]
        for number in going:
            del self._leaving[number]
            self._refusion.remove(number)

    def give_up_id(self, id: int) -> None:
        """The id is needed for another keyframe: what had it has gone, as far as it had come."""
        if id in self._leaving:
            self._let_leave(id)

    def rescale(self, ratio: float, voxel: float, unit: ScaleState) -> None:
        """The root has another unit, of which `ratio` make one of before; what is in the store is
        in it already."""
        for order, kept in self._left.items():
            view = grown(kept.view, ratio)
            self._left[order] = replace(kept, view=view, voxel=voxel, unit=unit)

    def _next_left(self) -> ArchivedView:
        return self._left.pop(next(iter(self._left)))

    def _put(self, kept: ArchivedView) -> None:
        try:
            whole = self._archive.whole(kept)
        except PagingFailed as error:
            log.warning("a keyframe of before is left out: %s", error)
            self._archive.lose(kept.view.order)
            if kept.heir is None:
                self._on_lost(kept.view.id)
            return
        order = kept.view.order
        if whole.id in self._views:  # a reconstruction that died may give an id again
            whole = replace(whole, id=-order)
        view = self._volume.touch(whole)
        self._views.put(view)
        self._refusion.note_added(view, is_fused=False)
        self._forgetting.note(view.band, order)
        if kept.heir is not None:
            self._leaving[view.id] = order, kept.heir
            self._archive.note_left(order, kept.heir, view.band)

    def _let_leave(self, id: int) -> None:
        order, heir = self._leaving.pop(id)
        if id in self._views and not self._refusion.remove(id, heir):
            self._archive.lose(order)
