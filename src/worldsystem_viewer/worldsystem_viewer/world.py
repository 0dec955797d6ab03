# SPDX-License-Identifier: Apache-2.0
"""What every page must see: the newest state of the world, and what changed since a given point.

The server holds state, not messages. A page holds a `Cursor`; whatever is newer than it is sent.
So a page that is slow, late or reconnecting needs no queue of its own: it skips to the newest.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float32

from worldsystem_core.mesh_stream.catalogue import SurfaceCatalogue
from worldsystem_core.mesh_stream.link import MeshLink, Parcel
from worldsystem_core.reconstruction import Pose
from worldsystem_core.surface import BlockIndex, MeshBlock, MeshDelta
from worldsystem_viewer.camera_path import CameraPath
from worldsystem_viewer.mesh_message import MeshChange
from worldsystem_viewer.protocol import Message, PathUpdate, encode

_MAX_TOMBSTONES = 65_536
COUNTED = "image"  # poses come faster than pages are drawn: merging those is no loss


@dataclass
class Slot:
    """The newest message of one kind, encoded when the first page asks for it."""

    version: int
    message: Message
    data: bytes | None = None

    def encoded(self) -> bytes:
        if self.data is None:
            self.data = encode(self.message)
        return self.data


@dataclass
class Cursor:
    """How far one page has come; `skipped` counts pictures that it never saw."""

    slots: dict[str, int] = field(default_factory=dict)
    mesh_change: int = 0
    path_epoch: int = -1
    path_length: int = 0
    skipped: int = 0


class World:
    """Newest state, written by the pipeline's thread and read by the server's; never blocks long.

    Every operation under the lock moves references only; encoding happens outside it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._slots: dict[str, Slot] = {}
        self._blocks: OrderedDict[BlockIndex, tuple[int, MeshBlock | None]] = OrderedDict()
        self._tombstones = 0
        self._forgotten_change = 0
        self._change = 0
        self._totals = (0, 0)
        self._path = CameraPath()
        self._catalogue = SurfaceCatalogue()
        self._viewpoint: Float32[np.ndarray, "3"] | None = None

    def put(self, name: str, message: Message) -> None:
        """Replace the state called `name`."""
        with self._lock:
            last = self._slots.get(name)
            self._slots[name] = Slot(last.version + 1 if last else 1, message)

    def apply(self, delta: MeshDelta) -> None:
        """Take changed and removed blocks into the surface."""
        with self._lock:
            self._catalogue.apply(delta)
            for index in delta.removed:
                self._replace(index, None)
            for block in delta.blocks:
                self._replace(block.index, block)
            self._totals = (delta.total_vertices, delta.total_faces)
            if self._tombstones > _MAX_TOMBSTONES:
                self._forget_tombstones()

    def _replace(self, index: BlockIndex, block: MeshBlock | None) -> None:
        self._change += 1
        before = self._blocks.pop(index, None)
        self._tombstones -= before is not None and before[1] is None
        self._tombstones += block is None
        self._blocks[index] = (self._change, block)

    def _forget_tombstones(self) -> None:
        for index, (change, block) in list(self._blocks.items()):
            if block is None:
                del self._blocks[index]
                self._forgotten_change = change
        self._tombstones = 0

    def add_pose(self, pose: Pose) -> None:
        """Append to the camera's path."""
        with self._lock:
            self._path.add(pose)
            self._viewpoint = pose.world_from_cam[:3, 3].astype(np.float32)

    def edit_path(self) -> _LockedPath:
        """The path under the lock: `with world.edit_path() as path: ...`."""
        return _LockedPath(self._lock, self._path)

    def can_resume(self, change: int) -> bool:
        """Whether a page that has the mesh up to `change` can go on from there."""
        with self._lock:
            return self._forgotten_change <= change <= self._change

    def can_resume_code(self, change: int) -> bool:
        """Whether a page that had the coded mesh complete to `change` can go on from there."""
        with self._lock:
            return 0 <= change <= self._catalogue.change

    def next_parcel(self, link: MeshLink, now_s: float) -> Parcel | None:
        """What a page behind `link` is to be sent now; to be encoded by the caller."""
        with self._lock:
            return link.next(self._catalogue, now_s, self._viewpoint)

    def newer_slots(self, cursor: Cursor) -> list[Slot]:
        """The states that the page has not got, in the order in which they first appeared."""
        found = []
        with self._lock:
            for name, slot in self._slots.items():
                seen = cursor.slots.get(name, slot.version - 1)
                if name not in cursor.slots or slot.version > seen:
                    if name == COUNTED:
                        cursor.skipped += max(0, slot.version - seen - 1)
                    cursor.slots[name] = slot.version
                    found.append(slot)
        return found

    def newer_path(self, cursor: Cursor) -> PathUpdate | None:
        """The centres that the page has not got; all of them after a correction."""
        with self._lock:
            if cursor.path_epoch != self._path.epoch:
                cursor.path_length = 0
            elif cursor.path_length == len(self._path):
                return None
            update = PathUpdate(
                start=cursor.path_length, positions=self._path.positions(cursor.path_length)
            )
            cursor.path_epoch, cursor.path_length = self._path.epoch, len(self._path)
        return update

    def newer_mesh(self, cursor: Cursor, budget_vertices: int) -> MeshChange | None:
        """The oldest changes that the page has not got, about `budget_vertices` of them."""
        with self._lock:
            entries = []
            for index, (change, block) in reversed(self._blocks.items()):
                if change <= cursor.mesh_change:
                    break
                entries.append((change, index, block))
            if not entries:
                return None
            entries.reverse()
            taken, vertices = 0, 0
            while taken < len(entries) and (taken == 0 or vertices < budget_vertices):
                block = entries[taken][2]
                vertices += 0 if block is None else len(block.vertices)
                taken += 1
            entries = entries[:taken]
            since, cursor.mesh_change = cursor.mesh_change, entries[-1][0]
            return MeshChange(
                since=since,
                change=cursor.mesh_change,
                blocks=tuple(block for _, _, block in entries if block is not None),
                removed=tuple(index for _, index, block in entries if block is None),
                totals=self._totals,
            )


class _LockedPath:
    """Context manager around the path and the world's lock."""

    def __init__(self, lock: threading.Lock, path: CameraPath) -> None:
        self._lock = lock
        self._path = path

    def __enter__(self) -> CameraPath:
        self._lock.acquire()
        return self._path

    def __exit__(self, *_: object) -> None:
        self._lock.release()
