# SPDX-License-Identifier: Apache-2.0
"""The views that were fused, so that they can be fused again: newest in memory, others on disk."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import replace

import numpy as np
from jaxtyping import UInt8

from worldsystem_mesh.page_file import PageFile, PagingFailed
from worldsystem_mesh.view import StoredView

log = logging.getLogger(__name__)

MOST_DISK_BYTES = 64 << 30


class ViewStore:
    """Every view by its id; pictures of those longest unused leave memory for a page file.

    What is small (pose, camera, blocks) stays in memory. When a view comes and those on disk take
    more than `MOST_DISK_BYTES`, or the disk is full, the oldest are let go for good and counted in
    `evicted`.
    """

    def __init__(self, capacity_bytes: int, page_dir: str = "") -> None:
        self._capacity_bytes = capacity_bytes
        self._page_dir = page_dir
        self._views: dict[int, StoredView] = {}
        self._shapes: dict[int, tuple[int, int]] = {}
        self._pictured: OrderedDict[int, int] = OrderedDict()
        self._files: dict[int, PageFile] = {}
        self._is_disk_full = False
        self.bytes = 0
        self.evicted = 0
        self.on_unloaded: Callable[[int], None] = lambda _id: None
        """Called with the id of a view whose pictures leave memory, or that leaves altogether."""

        self.on_evicted: Callable[[StoredView], None] = lambda _view: None
        """Called with the outline of a view that was let go for good."""

    def __len__(self) -> int:
        return len(self._views)

    def __contains__(self, id: int) -> bool:
        return id in self._views

    @property
    def ids(self) -> Iterable[int]:
        """Ids of all views, in no particular order."""
        return self._views.keys()

    @property
    def disk_bytes(self) -> int:
        """Size of the page files."""
        return sum(pages.size_bytes for pages in self._files.values())

    def held(self, id: int) -> StoredView:
        """The view as it is held: with or without its pictures."""
        return self._views[id]

    def outline(self, id: int) -> StoredView | None:
        """The view without its pictures (they are empty), which is never on disk."""
        view = self._views.get(id)
        return None if view is None else outline_of(view)

    def outlines(self) -> list[StoredView]:
        """All views as `outline` gives them, in the order in which they were fused."""
        found = [outline_of(view) for view in self._views.values()]
        return sorted(found, key=lambda view: view.order)

    def get(self, id: int) -> StoredView | None:
        """The whole view, read back when it was on disk; None when it is not here."""
        view = self._views.get(id)
        if view is None:
            return None
        if id not in self._pictured:
            shape = self._shapes[id]
            payload = self._file(shape).read(id)
            view = with_pictures(view, payload, shape)
            self._hold(view)
            self._make_room_on_read(keep=id)
        else:
            self._pictured.move_to_end(id)
        return view

    def put(self, view: StoredView) -> None:
        """Keep `view` in the place of the one with its id."""
        if view.id in self._views:
            self.pop(view.id)
        self._shapes[view.id] = view.depth.shape
        self._hold(view)
        self._make_room_on_put(keep=view.id)
        self._let_go_of_oldest(keep=view.id)

    def update(self, outline: StoredView) -> None:
        """Take over all but the pictures from `outline`."""
        held = self._views[outline.id]
        self._views[outline.id] = replace(outline, depth=held.depth, paint=held.paint)

    def pop(self, id: int) -> StoredView | None:
        """Forget the view; return its outline, or None when it is not here."""
        view = self._views.pop(id, None)
        if view is None:
            return None
        self.bytes -= self._pictured.pop(id, 0)
        self.on_unloaded(id)
        shape = self._shapes.pop(id)
        if _pixels(shape) in self._files:
            self._file(shape).forget(id)
        return outline_of(view)

    def close(self) -> None:
        """Delete the page files."""
        for pages in self._files.values():
            pages.close(delete=True)
        self._files.clear()

    def _hold(self, view: StoredView) -> None:
        self._views[view.id] = view
        size = _pixels(view.depth.shape) * BYTES_PER_PIXEL
        self.bytes += size - self._pictured.pop(view.id, 0)
        self._pictured[view.id] = size

    def _make_room_on_put(self, keep: int) -> None:
        """Where the disk is full, fusion goes on without the oldest views."""
        while (oldest := self._to_unload(keep)) is not None:
            try:
                self._unload(oldest)
            except PagingFailed as error:
                self._warn_of_full_disk(error)
                self._let_go(self._oldest_beside(oldest))

    def _make_room_on_read(self, keep: int) -> None:
        """Where the disk is full, only what is on it leaves memory: whoever reads views one by one
        must find them all."""
        try:
            while (oldest := self._to_unload(keep)) is not None:
                self._unload(oldest)
        except PagingFailed:
            others = [number for number in self._pictured if number != keep]
            for number in filter(self._is_on_disk, others):
                if self.bytes > self._capacity_bytes:
                    self._unload(number)

    def _to_unload(self, keep: int) -> int | None:
        """Whose pictures leave memory next: those longest unused; None while there is room."""
        if self.bytes <= self._capacity_bytes:
            return None
        return next((number for number in self._pictured if number != keep), None)

    def _unload(self, id: int) -> None:
        """Move a view's pictures to disk; raises `PagingFailed`, and changes nothing, where they
        cannot be written."""
        view, pages = self._views[id], self._file(self._shapes[id])
        if id not in pages:
            pages.write(id, pictures_of(view))
        self.bytes -= self._pictured.pop(id)
        self._views[id] = outline_of(view)
        self.on_unloaded(id)

    def _oldest_beside(self, id: int) -> int:
        """Of it and those in its page file, whose places it could take, the one fused first."""
        pages = self._files.get(_pixels(self._shapes[id]))
        numbers = [id] if pages is None else [id, *pages.keys]
        return min(numbers, key=lambda number: self._views[number].order)

    def _let_go_of_oldest(self, keep: int) -> None:
        """Not while views are read: whoever reads them one by one must find them all."""
        while sum(pages.used_bytes for pages in self._files.values()) > MOST_DISK_BYTES:
            on_disk = [number for pages in self._files.values() for number in pages.keys]
            others = [number for number in on_disk if number != keep]
            if not others:
                return
            self._let_go(min(others, key=lambda number: self._views[number].order))

    def _let_go(self, id: int) -> None:
        view = self.pop(id)
        assert view is not None  # what is in memory or in a page file is here
        self.evicted += 1
        self.on_evicted(view)

    def _is_on_disk(self, id: int) -> bool:
        pages = self._files.get(_pixels(self._shapes[id]))
        return pages is not None and id in pages

    def _warn_of_full_disk(self, error: PagingFailed) -> None:
        if not self._is_disk_full:
            log.warning("the oldest keyframes cannot be moved any more: %s", error)
        self._is_disk_full = True

    def _file(self, shape: tuple[int, int]) -> PageFile:
        pixels = _pixels(shape)
        if pixels not in self._files:
            size = pixels * BYTES_PER_PIXEL
            made = PageFile.temporary(self._page_dir, "views", size)
            self._files[pixels] = made
        return self._files[pixels]


BYTES_PER_PIXEL = 2 + 4
NO_DEPTH = np.zeros((0, 0), np.uint16)
NO_PAINT = np.zeros((0, 0), np.uint32)


def _pixels(shape: tuple[int, ...]) -> int:
    return shape[0] * shape[1]


def outline_of(view: StoredView) -> StoredView:
    return replace(view, depth=NO_DEPTH, paint=NO_PAINT)


def pictures_of(view: StoredView) -> UInt8[np.ndarray, "n"]:
    planes = (view.depth, view.paint)
    return np.concatenate([np.ascontiguousarray(p).reshape(-1).view(np.uint8) for p in planes])


def with_pictures(
    view: StoredView, payload: UInt8[np.ndarray, "n"], shape: tuple[int, int]
) -> StoredView:
    n = _pixels(shape)
    return replace(
        view,
        depth=payload[: 2 * n].view(np.uint16).reshape(shape),
        paint=payload[2 * n :].view(np.uint32).reshape(shape),
    )
