# SPDX-License-Identifier: Apache-2.0
"""Keeps what a map is saved from, loads one at the start, and saves it now and then."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from worldsystem_core.errors import MapError
from worldsystem_core.reconstruction import Event, Keyframe, NewKeyframe
from worldsystem_core.sparing import Sparing
from worldsystem_slam3r.graph.atlas import Atlas, Kept
from worldsystem_slam3r.graph.loops import LoopFinder
from worldsystem_slam3r.maps.autosave import MapSaver
from worldsystem_slam3r.maps.content import MapContent, SavedMap, dense_keyframes
from worldsystem_slam3r.maps.dense_memory import DenseMemory
from worldsystem_slam3r.maps.next_life import take_up_again
from worldsystem_slam3r.scale.enu import ENU
from worldsystem_slam3r.scale.metric import MetricScale

log = logging.getLogger(__name__)

MEGABYTE = 1_000_000
SAVING_SHARE = 0.05
"""Of a processor may go to gathering what is to be saved: large maps are saved less often than
asked for. Of the time, it would be put off where others have the processors."""
TOLD_AT_ONCE = 3
"""Keyframes of a loaded map that go out with each picture: later stages have queues of 50."""


@dataclass(frozen=True)
class Loaded:
    """What came in: how many keyframes, and the numbers that are free after them."""

    keyframes: int
    next_id: int
    next_submap: int


class MapKeeper:
    """Between the atlas and the disk; `folder` is saved to by itself every `every_s`."""

    def __init__(
        self, atlas: Atlas, finder: LoopFinder, metric: MetricScale, *, memory_mb: int
    ) -> None:
        self._atlas = atlas
        self._finder = finder
        self._metric = metric
        self.dense = DenseMemory(memory_mb * MEGABYTE)
        self._saver: MapSaver | None = None
        self._every_s = 0.0
        self._saved_s = time.monotonic()
        self._handed_on: tuple[int, int, int] = (0, -1, 0)
        self._loading: Iterator[Keyframe] = iter(())
        self._tells_all = False
        self._gathering = Sparing(SAVING_SHARE, spent=time.thread_time)

    def save_by_itself(self, folder: Path, every_s: float) -> None:
        """Save to `folder` every so often, and at the end."""
        self._saver = MapSaver(folder)
        self._every_s = every_s

    def let_go(self) -> None:
        """Save no more by itself, and leave what lies there to others."""
        if self._saver is not None:
            self._saver.close()
            self._saver = None

    @property
    def failure(self) -> str:
        """Why the last save by itself failed; empty when it did not."""
        return "" if self._saver is None else self._saver.failure

    def keyframe(self, told: Keyframe, kept: Kept) -> None:
        """A keyframe went out; its dense part is kept in its own unit."""
        self.dense.add(told, kept.world.scale)

    def remove(self, id: int) -> None:
        """A keyframe was withdrawn."""
        self.dense.remove(id)

    def tick(self) -> None:
        """Save by itself when it is time and something is new, or was not saved."""
        now_s = time.monotonic()
        if self._saver is None or now_s - self._saved_s < self._every_s:
            return
        self._gathering.wanted = self._state() != self._handed_on or bool(self._saver.failure)
        if self._gathering.is_due:
            self._saved_s = now_s
            self._save_soon(self._saver)

    def close(self) -> None:
        """A last save, then the end of the thread."""
        if self._saver is not None:
            self._save_soon(self._saver)
            self._saver.close()

    def _save_soon(self, saver: MapSaver) -> None:
        self._handed_on = self._state()
        if self._atlas.keyframes:
            with self._gathering.work():
                content = self._content()
            saver.save(content, time.time_ns())

    def _state(self) -> tuple[int, int, int]:
        """How many keyframes there are, the one that came last, and how often they moved."""
        newest = next(reversed(self._atlas.keyframes), -1)
        return len(self._atlas.keyframes), newest, self._atlas.corrections

    def _content(self) -> MapContent:
        enu = self._metric.enu if self._atlas.axes == ENU else None
        return MapContent.of(self._atlas, self.dense, enu)

    def save(self, folder: Path) -> str:
        """Save now; returns a sentence about it."""
        content = self._content()
        if not len(content.nodes):
            raise MapError("there is no map yet: wait for the first keyframes, then save again")
        manifest = content.save(folder, time.time_ns())
        size = sum(entry.size for entry in manifest.files.values())
        return f"saved {len(content.nodes)} keyframes ({size / MEGABYTE:.1f} MB) to {folder}"

    def load(self, folder: Path) -> Loaded:
        """Take a saved map as the world; only while there is none."""
        if self._atlas.has_begun:
            raise MapError(
                "a map is being made already: load one before the camera is located "
                "(`--set slam3r.map=FOLDER`)"
            )
        saved = SavedMap(folder)
        restored = saved.restore(self._atlas, self.dense)
        for kept in restored:
            if kept.station is not None:
                self._finder.index.add(kept.id, kept.station.features)
        if saved.enu is not None:
            self._metric.put_origin(saved.enu)
        self._loading = saved.keyframes(restored, self.dense)
        self._handed_on = self._state()
        take_up_again(folder)
        log.info("loaded %d keyframes from %s", len(restored), folder)
        return Loaded(
            len(restored),
            max((kept.id for kept in restored), default=-1) + 1,
            max((kept.submap for kept in restored), default=-1) + 1,
        )

    def tell_again(self) -> int:
        """Have every placed keyframe told again, a few at a time; returns how many there are.

        For a stage that began anew and has lost what it was told before. Where all lie is to be
        told first: also of those whose dense part has gone, and for one that has it still.
        """
        placed = [k for k in self._atlas.keyframes.values() if self._atlas.is_placed(k.submap)]
        self._loading = dense_keyframes(placed, self.dense, Path("memory"))
        self._tells_all = True
        return len(placed)

    def told_again(self, *, everything: bool) -> list[Event]:
        """Keyframes of a loaded map, where they lie now; when all are told, first where they do."""
        moved = self._atlas.changed(everything=True) if self.begins_to_tell_all() else None
        found = self.loaded_keyframes(everything=everything)
        told = [NewKeyframe(self._atlas.told_again(keyframe)) for keyframe in found]
        return [*([] if moved is None else [moved]), *told]

    def begins_to_tell_all(self) -> bool:
        """Whether `tell_again` was called since this was asked last."""
        begins, self._tells_all = self._tells_all, False
        return begins

    def loaded_keyframes(self, *, everything: bool = False) -> list[Keyframe]:
        """The next keyframes that have to be told again, a few at a time."""
        found: list[Keyframe] = []
        while everything or len(found) < TOLD_AT_ONCE:
            keyframe = next(self._loading, None)
            if keyframe is None:
                return found
            found.append(keyframe)
        return found
