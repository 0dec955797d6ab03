# SPDX-License-Identifier: Apache-2.0
"""A back-end that can begin anew: by its own `restart`, or by opening another one in its place."""

from __future__ import annotations

import gc
import logging
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol, runtime_checkable

from worldsystem_core.errors import BackendError, ShapeChanged
from worldsystem_core.frames import Camera, Frame
from worldsystem_core.hung_poses import NOTHING
from worldsystem_core.reconstruction import (
    Event,
    MovedKeyframes,
    NewKeyframe,
    Pose,
    ReconstructionBackend,
    RemovedKeyframes,
)

log = logging.getLogger(__name__)

Make = Callable[[], ReconstructionBackend]


@runtime_checkable
class Restartable(Protocol):
    """What a back-end may offer so that a loss does not cost what it knows of the camera."""

    def restart(self) -> list[Event]:
        """Give up the present map and begin a new sub-map with the next frame.

        Returns what was held back of the old one; after it no event of that may come. Frame order,
        keyframe ids and what is known of the camera go on, the last unless a frame was refused as
        `ShapeChanged`, which then is fed again. All later events are of the new sub-map; the graph
        numbers it, the back-end need not.
        """
        ...


@runtime_checkable
class KeepsOrder(Protocol):
    """A back-end that can restart, and refuses frames that are not newer than the last."""

    def forget_order(self) -> None:
        """After a `restart`: the next frame may have any id and stamp, as of a clock set anew."""
        ...


@runtime_checkable
class WorksBeside(Protocol):
    """A back-end whose threads finish keyframes between frames."""

    def collect(self) -> list[Event]:
        """What was finished since the last call; the next `feed` tells it otherwise."""
        ...


@runtime_checkable
class KnowsPlaces(Protocol):
    """A back-end with a retrieval of its own, asked beside the words of the place index."""

    def similar_keyframes(self, keyframe_id: int, count: int) -> list[int]:
        """Up to `count` earlier keyframes that may show what this one shows, best first."""
        ...


class _Unopened:
    """In place of a back-end that has finished, until the next one is open."""

    def __init__(self, make: Make) -> None:
        self.make = make

    def feed(self, frame: Frame) -> list[Event]:
        """Nobody is there to take it."""
        raise BackendError(f"frame {frame.id} came before a back-end was opened for it")

    def finish(self) -> list[Event]:
        """Nothing was held back."""
        return []


class RenewableBackend:
    """Any back-end, with a `restart`; keyframe ids and sub-maps are numbered on from `first_id`.

    `make` opens another back-end of the same settings where the first has no `restart` of its own,
    once the memory of that one is free; where it fails, the next frame tries again. Without it one
    that cannot restart goes on looking for its way back.
    """

    def __init__(
        self,
        backend: ReconstructionBackend,
        make: Make | None,
        *,
        first_id: int = 0,
        first_submap: int = 0,
    ) -> None:
        self._backend = backend
        self._make = make
        self._id_offset = first_id
        self._submap_offset = first_submap
        self._next_id = first_id
        self._next_submap = first_submap

    @property
    def inner(self) -> ReconstructionBackend:
        """The back-end that works now."""
        return self._backend

    @property
    def health(self) -> object:
        """What that back-end says of its own state; None where it says nothing."""
        return getattr(self._backend, "health", None)

    @property
    def lens(self) -> Camera | None:
        """The filmed camera that the back-end goes by, of its own picture size; None where it does
        not tell, or does not know it yet."""
        return getattr(self._backend, "lens", None)

    def facts(self) -> dict[str, object]:
        """What diagnostics say of that back-end, by name."""
        dropped = getattr(self._backend, "dropped_keyframes", None)
        return {} if dropped is None else {"dropped_keyframes": dropped}

    def number_from(self, first_id: int, first_submap: int | None = None) -> None:
        """Number on from here, sub-maps where told; only before the first frame.

        Numbers that were given away already stay so.
        """
        self._id_offset = self._next_id = max(first_id, self._next_id)
        if first_submap is not None:
            self._submap_offset = self._next_submap = max(first_submap, self._next_submap)

    def feed(self, frame: Frame) -> list[Event]:
        """As the back-end's, in this numbering; pictures of another shape or camera begin a new
        sub-map."""
        self._open()
        try:
            return self._numbered(self._backend.feed(frame))
        except ShapeChanged:
            log.warning(
                "pictures are %d×%d now, or of another camera: a new sub-map begins",
                *(frame.width, frame.height),
            )
            rest = self.restart()
            return rest + self._numbered(self._backend.feed(frame))

    def collect(self) -> list[Event]:
        """What the back-end has ready beside frames, in this numbering; nothing where it does not
        tell."""
        if not isinstance(self._backend, WorksBeside):
            return []
        return self._numbered(self._backend.collect())

    def finish(self) -> list[Event]:
        """As the back-end's, in this numbering."""
        return self._numbered(self._backend.finish())

    def restart(self) -> list[Event]:
        """Begin a new sub-map with the next frame; returns the rest of the old one."""
        if isinstance(self._backend, Restartable):
            events = self._numbered(self._backend.restart())
            self._next_submap = max(self._next_submap, self._submap_offset + 1)
            self._submap_offset = self._next_submap
            return events
        if self._make is None:
            return []
        try:
            events = self.finish()
        finally:  # it takes no more frames, whatever becomes of this or of the next one
            self._backend = _Unopened(self._make)
            self._next_submap = max(self._next_submap, self._submap_offset + 1)
            self._id_offset, self._submap_offset = self._next_id, self._next_submap
        self._open()
        return events

    def _open(self) -> None:
        if isinstance(self._backend, _Unopened):
            _free_memory()
            self._backend = self._backend.make()

    def begin_anew(self, make: Make) -> None:
        """As `restart`, also for one that has to be opened again, by `make`; its rest is lost, and
        the next frame may have any id and stamp."""
        own, self._make = self._make, self._make or make
        try:
            self.restart()
            if isinstance(self._backend, KeepsOrder):
                self._backend.forget_order()
        finally:
            self._make = own

    def similar_keyframes(self, keyframe_id: int, count: int) -> list[int]:
        """As the back-end's own retrieval has it; nothing where it has none."""
        own = keyframe_id - self._id_offset
        if own < 0 or not isinstance(self._backend, KnowsPlaces):
            return []
        return [key + self._id_offset for key in self._backend.similar_keyframes(own, count)]

    def _numbered(self, events: list[Event]) -> list[Event]:
        return [self._renumbered(event) for event in events]

    def _renumbered(self, event: Event) -> Event:
        ids, submaps = self._id_offset, self._submap_offset
        if isinstance(event, NewKeyframe):
            kept = event.keyframe
            kept = replace(kept, id=kept.id + ids, submap=kept.submap + submaps)
            self._next_id = max(self._next_id, kept.id + 1)
            self._next_submap = max(self._next_submap, kept.submap + 1)
            return NewKeyframe(kept)
        if isinstance(event, Pose):
            hangs_on = event.keyframe_id + ids if event.keyframe_id != NOTHING else NOTHING
            return replace(event, keyframe_id=hangs_on, submap=event.submap + submaps)
        if isinstance(event, MovedKeyframes):
            return replace(
                event,
                world_from_cam={key + ids: pose for key, pose in event.world_from_cam.items()},
                point_scale={key + ids: scale for key, scale in event.point_scale.items()},
            )
        return RemovedKeyframes(tuple(key + ids for key in event.ids))


def _free_memory() -> None:
    """Give back what networks that are gone held: torch keeps memory of the GPU for itself."""
    gc.collect()
    torch = sys.modules.get("torch")  # not imported for it
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
