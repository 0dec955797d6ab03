# SPDX-License-Identifier: Apache-2.0
"""What the surface is made of, in files that outlive the process: the keyframes as they are fused,
where they lie now, and those for which others stand in, as far as no other shows the same."""

from __future__ import annotations

import logging
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import Int32

from worldsystem_core.reconstruction import Keyframe, ScaleState
from worldsystem_mesh.archived_view import (
    NO_BLOCKS,
    RECORD,
    ArchivedView,
    bare,
    grown,
    in_unit_of,
    packed,
    unpacked,
)
from worldsystem_mesh.config import MeshConfig
from worldsystem_mesh.page_file import PageFile, PagingFailed
from worldsystem_mesh.view import StoredView
from worldsystem_mesh.view_store import BYTES_PER_PIXEL, pictures_of, with_pictures

log = logging.getLogger(__name__)

PICTURES, SUFFIX = "pictures-", ".kept"
MOST_SHOWING = 8
"""Replaced keyframes that are kept for a block: about as many as its surface needs to look as it
did. So what is kept grows with the place and not with the time."""

SHOWN_SHARE = 0.9
RECORDS_STEP_BYTES = 1 << 14
"""By so much the file of records grows: some fifty of them."""

PER_RECORDS = 64
"""Of so many bytes of pictures, one is left for records."""
NOBODY = -1


class ViewArchive:
    """Keeps views in files of `folder`, which take at most `capacity_bytes`; what was there before
    stays only with `restore`.

    A keyframe that finds no room is not kept, and of replaced ones the oldest of its size goes.
    Where nothing can be written all that was kept goes, with a warning: what is old would be wrong.
    """

    def __init__(self, folder: Path, capacity_bytes: int, *, restore: bool) -> None:
        self._folder = folder
        self._capacity_bytes = capacity_bytes
        self._kept: dict[int, ArchivedView] = {}
        self._order_of: dict[int, int] = {}
        self._left_by: defaultdict[int, dict[int, Int32[np.ndarray, "b"]]] = defaultdict(dict)
        self._showing = np.zeros(0, np.int16)
        self._files: dict[int, PageFile] = {}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for path in () if restore else folder.glob(f"*{SUFFIX}"):
                path.unlink()
        except OSError as error:
            raise PagingFailed(f"cannot write to {folder}: {error}; set archive_dir") from error
        self._records = self._opened_records()
        if restore:
            self._find()

    @property
    def bytes(self) -> int:
        """Disk that the files take, also for what is to come."""
        return sum(pages.reserved_bytes for pages in (self._records, *self._files.values()))

    def kept(self) -> list[ArchivedView]:
        """All that is kept, in the order in which it was fused."""
        return [self._kept[order] for order in sorted(self._kept)]

    def whole(self, kept: ArchivedView) -> StoredView:
        """The view with its pictures; raises `PagingFailed` where they are damaged or gone."""
        pages, order = self._pictures(kept.shape), kept.view.order
        if order not in pages:
            raise PagingFailed(f"{pages.path} has no keyframe {kept.view.id} any more")
        payload = pages.read(order)
        return with_pictures(kept.view, payload, kept.shape)

    def put(self, view: StoredView, keyframe: Keyframe, voxel: float, unit: ScaleState) -> None:
        """Keep a view of `keyframe`, just fused, in the place of the one of its id, if any."""
        self.drop(view.id)
        self.lose(view.order)
        shape = (view.depth.shape[0], view.depth.shape[1])
        pages = self._pictures(shape)
        if not self._make_room(pages):
            return
        pages.most_bytes = self._most_for(pages)
        try:
            pages.write(view.order, pictures_of(view))
        except PagingFailed as error:
            self._give_up(error)
            return
        self._order_of[view.id] = view.order
        stamp_ns, frame_id = keyframe.stamp_ns, keyframe.frame_id
        self._write(ArchivedView(bare(view), frame_id, stamp_ns, shape, voxel, unit))

    def place(self, outline: StoredView, voxel: float, unit: ScaleState) -> None:
        """A view lies elsewhere or has another size now."""
        held = self._kept.get(self._order_of.get(outline.id, NOBODY))
        if held is not None:
            view = replace(bare(outline), order=held.view.order)
            self._write(replace(held, view=view, voxel=voxel, unit=unit))

    def told_again(self, id: int) -> None:
        """The keyframe was told once more, in the size that it has now."""
        held = self._kept.get(self._order_of.get(id, NOBODY))
        if held is not None and held.scale_when_told != held.view.scale:
            self._write(replace(held, scale_when_told=held.view.scale))

    def leave(self, id: int, heir: int, band: Int32[np.ndarray, "b"]) -> None:
        """Another keyframe stands in for this one, whose share of the surface, near the blocks
        `band`, stays."""
        order = self._order_of.pop(id, None)
        before = self._left_by.pop(id, {})
        self._left_by[heir] |= before
        if order is not None and self._is_shown(band):
            self._forget(order)
        elif order is not None:
            self.note_left(order, heir, band)
        for each in [*before, *([] if order is None else [order])]:
            if each in self._kept:  # unless all was given up meanwhile
                self._write(replace(self._kept[each], heir=heir))

    def note_left(self, order: int, heir: int, band: Int32[np.ndarray, "b"]) -> None:
        """A kept view for which `heir` stands in shows the surface near these blocks."""
        self._reach(band)
        self._left_by[heir][order] = band
        self._showing[band] += 1

    def lose(self, order: int) -> None:
        """Forget the kept view of `order`, which is damaged or whose share of the surface is gone;
        does nothing when there is none."""
        held = self._kept.get(order)
        if held is None:
            return
        if held.heir is None:
            self._order_of.pop(held.view.id, None)
        else:
            self._showing[self._left_by[held.heir].pop(order)] -= 1
        self._forget(order)

    def drop(self, id: int) -> None:
        """The keyframe is withdrawn, and what it stood in for goes with it."""
        self.drop_left_by(id)
        order = self._order_of.pop(id, None)
        if order is not None:
            self._forget(order)

    def drop_left_by(self, heir: int) -> None:
        """The keyframe has moved: what it stood in for is not where it belongs any more."""
        for order, band in self._left_by.pop(heir, {}).items():
            self._showing[band] -= 1
            self._forget(order)

    def rescale_left(self, ratio: float, voxel: float, unit: ScaleState) -> None:
        """The root has another unit, of which `ratio` make one of before."""
        for held in list(self._kept.values()):
            if held.heir is not None and self._capacity_bytes:
                view = grown(held.view, ratio)
                self._write(replace(held, view=view, voxel=voxel, unit=unit))

    def clear(self) -> None:
        """Nothing of what was kept is wanted any more: give the disk back."""
        for pages in (self._records, *self._files.values()):
            pages.close(delete=True)
        self._files.clear()
        self._records = self._opened_records()
        self._kept.clear()
        self._order_of.clear()
        self._left_by.clear()
        self._showing[:] = 0

    def close(self) -> None:
        """Leave the files to a process to come."""
        for pages in (self._records, *self._files.values()):
            pages.close(delete=False)

    def _find(self) -> None:
        """Take over what another process left, as far as it is whole."""
        for path in self._folder.glob(f"{PICTURES}*{SUFFIX}"):
            pixels = path.name.removeprefix(PICTURES).removesuffix(SUFFIX)
            if pixels.isdecimal():
                self._file(int(pixels))
        found = {order: unpacked(self._records.read(order)) for order in self._records.keys}
        for order, one in sorted(found.items()):
            if order not in self._pictures(one.shape):
                self._records.forget(order)
                continue
            self._kept[order] = in_unit_of(one, found[max(found)])
            if one.heir is None:
                self._order_of[one.view.id] = order
            else:
                self._left_by[one.heir][order] = NO_BLOCKS

    def _make_room(self, pages: PageFile) -> bool:
        """Whether one more fits, if need be in the place of the oldest replaced one of its size:
        files never shrink."""
        if self._fits(pages):
            return True
        left = [order for orders in self._left_by.values() for order in orders if order in pages]
        if left:
            self.lose(min(left))
        return bool(left)

    def _fits(self, pages: PageFile) -> bool:
        """Whether the files may grow so far that they hold one more, and say where another lies."""
        more = pages.growth_for(1)
        more += RECORDS_STEP_BYTES if self._records.growth_for(2) else 0
        return not more or self.bytes + more <= self._capacity_bytes

    def _most_for(self, pages: PageFile) -> int:
        """How large a file of pictures may become."""
        others = sum(each.reserved_bytes for each in self._files.values() if each is not pages)
        records = max(2 * RECORDS_STEP_BYTES, self._capacity_bytes // PER_RECORDS)
        records = max(records, self._records.reserved_bytes)
        return self._capacity_bytes - others - records

    def _is_shown(self, band: Int32[np.ndarray, "b"]) -> bool:
        """Whether enough replaced keyframes show these blocks; noise of far views reaches some
        that no other shows, with every view others."""
        self._reach(band)
        shown = self._showing[band] >= MOST_SHOWING
        return bool(shown.sum() >= SHOWN_SHARE * len(band))

    def _opened_records(self) -> PageFile:
        return PageFile.open_existing(self._folder / f"records{SUFFIX}", RECORD.itemsize)

    def _reach(self, band: Int32[np.ndarray, "b"]) -> None:
        reach, known = int(band.max(initial=-1)) + 1, len(self._showing)
        if reach > known:
            more = np.zeros(max(reach, 2 * known) - known, np.int16)
            self._showing = np.concatenate([self._showing, more])

    def _write(self, kept: ArchivedView) -> None:
        self._kept[kept.view.order] = kept
        self._records.most_bytes = self._records.reserved_bytes + RECORDS_STEP_BYTES
        try:
            self._records.write(kept.view.order, packed(kept))
        except PagingFailed as error:
            self._give_up(error)

    def _forget(self, order: int) -> None:
        """The record first: without it nobody looks for the pictures."""
        self._records.forget(order)
        self._pictures(self._kept.pop(order).shape).forget(order)

    def _give_up(self, error: PagingFailed) -> None:
        log.warning("after a crash the surface would have to be made anew: %s", error)
        self.clear()
        self._capacity_bytes = 0

    def _pictures(self, shape: tuple[int, int]) -> PageFile:
        return self._file(shape[0] * shape[1])

    def _file(self, pixels: int) -> PageFile:
        if pixels not in self._files:
            path = self._folder / f"{PICTURES}{pixels}{SUFFIX}"
            self._files[pixels] = PageFile.open_existing(path, pixels * BYTES_PER_PIXEL)
        return self._files[pixels]


def archive_of(config: MeshConfig) -> ViewArchive | None:
    """The archive that the settings ask for, if any."""
    if not config.archive_dir:
        return None
    room = config.archive_mb * 1_000_000
    return ViewArchive(Path(config.archive_dir), room, restore=config.restore)
