# SPDX-License-Identifier: Apache-2.0
"""What every page must see: the newest state of the world, and what changed since a given point.

The server holds state, not messages. A page holds a `Cursor`; whatever is newer than it is sent.
So a page that is slow, late or reconnecting needs no queue of its own: it skips to the newest.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Container, Iterable
from dataclasses import dataclass, field, replace

import numpy as np
from jaxtyping import Float32

from worldsystem_core.mesh_stream.catalogue import SurfaceCatalogue
from worldsystem_core.mesh_stream.link import MeshLink, Parcel
from worldsystem_core.reconstruction import Keyframe, MovedKeyframes, Pose, RemovedKeyframes
from worldsystem_core.surface import BlockIndex, MeshBlock, MeshDelta
from worldsystem_core.trajectory import StampedPoses
from worldsystem_viewer.camera_path import CameraPath
from worldsystem_viewer.keyframe_store import KeyframeCursor, KeyframeStore, cloud_of
from worldsystem_viewer.mesh_message import MeshChange
from worldsystem_viewer.protocol import (
    KeyframesUpdate,
    Message,
    PathUpdate,
    PointsUpdate,
    encode,
)

_MAX_TOMBSTONES = 65_536
_MOST_POINTS = 2_000_000
_MOST_VERTICES = 25_000_000
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
    """How far one page has come; `skipped` counts pictures that it never saw, and `step` is the
    newest common one (`page_steps.py`) that it has."""

    slots: dict[str, int] = field(default_factory=dict)
    mesh_change: int = 0
    path_epoch: int = -1
    path_length: int = 0
    skipped: int = 0
    step: int = -1
    keyframes: KeyframeCursor = field(default_factory=KeyframeCursor)


class World:
    """Newest state, written by the pipeline's thread and read by the server's; never blocks long.

    Every operation under the lock moves references only; encoding happens outside it. Above
    `most_vertices` the blocks that changed longest ago go, to 90 %; `let_go` counts them.
    """

    def __init__(
        self, most_points: int = _MOST_POINTS, most_vertices: int = _MOST_VERTICES
    ) -> None:
        self._most_vertices = most_vertices
        self._vertices = 0
        self.let_go = 0
        self._keyframes = KeyframeStore(most_points)
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

    @property
    def block_count(self) -> int:
        """Blocks of the surface that are held."""
        with self._lock:
            return len(self._blocks) - self._tombstones

    def put(self, name: str, message: Message) -> None:
        """Replace the state called `name`."""
        with self._lock:
            last = self._slots.get(name)
            self._slots[name] = Slot(last.version + 1 if last else 1, message)

    def apply(self, delta: MeshDelta) -> None:
        """Take changed and removed blocks into the surface."""
        with self._lock:
            self._catalogue.apply(delta)
            self._replace((index, None) for index in delta.removed)
            self._replace((block.index, block) for block in delta.blocks)
            self._totals = (delta.total_vertices, delta.total_faces)
            if self._vertices > self._most_vertices:
                self._let_go_of_old(delta)
            if self._tombstones > _MAX_TOMBSTONES:
                self._forget_old_tombstones()

    def _let_go_of_old(self, delta: MeshDelta) -> None:
        excess, old = self._vertices - 0.9 * self._most_vertices, []
        for index, (_, block) in self._blocks.items():
            if excess <= 0:
                break
            if block is not None:
                excess -= block.vertex_count
                old.append(index)
        self._replace((index, None) for index in old)
        self._catalogue.apply(replace(delta, blocks=(), removed=tuple(old)))
        self.let_go += len(old)

    def _replace(self, entries: Iterable[tuple[BlockIndex, MeshBlock | None]]) -> None:
        held, change, vertices, tombstones = self._blocks, self._change, 0, 0
        for index, block in entries:
            change += 1
            before = held.pop(index, None)
            if before is not None and before[1] is not None:
                vertices -= before[1].vertex_count
            elif before is not None:
                tombstones -= 1
            if block is not None:
                vertices += block.vertex_count
            else:
                tombstones += 1
            held[index] = (change, block)
        self._change = change
        self._vertices += vertices
        self._tombstones += tombstones

    def _forget_old_tombstones(self) -> None:
        """The newest stay, half as many as may be held; see `newer_meshes` for who lacks others."""
        places = self._blocks.items()
        gone = [(index, change) for index, (change, block) in places if block is None]
        for index, change in gone[: -_MAX_TOMBSTONES // 2]:
            del self._blocks[index]
            self._forgotten_change = change
            self._tombstones -= 1

    def add_pose(self, pose: Pose) -> None:
        """Append to the camera's path."""
        with self._lock:
            self._path.add(pose)
            self._viewpoint = pose.world_from_cam[:3, 3].astype(np.float32)

    def put_path_before(self, poses: StampedPoses) -> None:
        """What the camera's path was before the first pose that was added here."""
        with self._lock:
            self._path.put_before(poses)

    def add_keyframe(self, keyframe: Keyframe) -> None:
        """A new keyframe: the path hangs on it, and a sample of its points."""
        cloud = cloud_of(keyframe)
        with self._lock:
            self._path.add_keyframe(keyframe.id, keyframe.world_from_cam)
            self._keyframes.add(keyframe, cloud)

    def move_keyframes(self, moved: MovedKeyframes) -> None:
        """Keyframes were corrected; the path and the points that hang on them follow."""
        with self._lock:
            self._path.move(moved.world_from_cam, moved.point_scale)
            self._keyframes.move(moved)

    def remove_keyframes(self, removed: RemovedKeyframes) -> None:
        """Keyframes were withdrawn; the path goes along with those that stand in for them."""
        with self._lock:
            self._path.remove(removed)
            self._keyframes.remove(removed.ids)

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

    def newer_slots(self, cursor: Cursor, left_out: Container[str] = ()) -> list[Slot]:
        """The states that the page has not got, in the order in which they first appeared."""
        return [slot for _, slot in self.newer_named_slots(cursor, left_out)]

    def newer_named_slots(
        self, cursor: Cursor, left_out: Container[str] = ()
    ) -> list[tuple[str, Slot]]:
        """The same with their names."""
        found = []
        with self._lock:
            for name, slot in self._slots.items():
                if name in left_out:
                    continue
                seen = cursor.slots.get(name, slot.version - 1)
                if name not in cursor.slots or slot.version > seen:
                    if name == COUNTED:
                        cursor.skipped += max(0, slot.version - seen - 1)
                    cursor.slots[name] = slot.version
                    found.append((name, slot))
        return found

    def newer_keyframes(self, cursor: Cursor) -> KeyframesUpdate | None:
        """The keyframes that are new or corrected."""
        with self._lock:
            return self._keyframes.newer(cursor.keyframes)

    def next_cloud(self, cursor: Cursor) -> PointsUpdate | None:
        """The points nearest to the camera that the page has not got."""
        with self._lock:
            return self._keyframes.next_cloud(cursor.keyframes, self._viewpoint)

    @property
    def viewpoint(self) -> Float32[np.ndarray, "3"] | None:
        """Where the camera is."""
        return self._viewpoint

    @property
    def voxel(self) -> float:
        """Edge of a voxel [world units]; 0 before the first delta."""
        return self._catalogue.voxel

    def path_at(self, stamp_ns: int) -> PathUpdate:
        """The path as far as it went at a capture time, with all corrections since."""
        with self._lock:
            return PathUpdate(start=0, positions=self._path.positions_until(stamp_ns))

    def newer_path(self, cursor: Cursor) -> PathUpdate | None:
        """The centres that the page has not got; all of them after a correction."""
        with self._lock:
            self._path.show_corrections(time.monotonic())
            if cursor.path_epoch != self._path.epoch:
                cursor.path_length = 0
            elif cursor.path_length == len(self._path):
                return None
            update = PathUpdate(
                start=cursor.path_length, positions=self._path.positions(cursor.path_length)
            )
            cursor.path_epoch, cursor.path_length = self._path.epoch, len(self._path)
        return update

    def nearest_blocks(self) -> tuple[int, list[MeshBlock], tuple[int, int]]:
        """Everything up to a change, which is the first: blocks nearest to the camera first."""
        with self._lock:
            change, totals, viewpoint = self._change, self._totals, self._viewpoint
            blocks = [block for _, block in self._blocks.values() if block is not None]
            edge = self._catalogue.block_size
        if viewpoint is not None and blocks:
            centres = (np.array([block.index for block in blocks]) + 0.5) * edge
            order = np.argsort(np.linalg.norm(centres - viewpoint, axis=1), kind="stable")
            blocks = [blocks[at] for at in order]
        return change, blocks, totals

    @property
    def change(self) -> int:
        """Number of the newest change of the surface; a delta's changes come all at once."""
        with self._lock:
            return self._change

    def newer_mesh(self, since: int, budget_vertices: int, until: int) -> MeshChange:
        """The oldest changes behind `since`, about `budget_vertices` of them, none behind `until`.

        It ends at `until` where that is less than the budget.
        """
        return self.newer_meshes(since, budget_vertices, until)[0]

    def newer_meshes(self, since: int, budget_vertices: int, until: int) -> list[MeshChange]:
        """All changes between, in parts of about `budget_vertices`; the last ends at `until`.

        Whoever may lack removals that are forgotten is told of all places that are empty now.
        """
        with self._lock:
            entries = []
            for index, (change, block) in reversed(self._blocks.items()):
                if change <= since:
                    break
                if change <= until:
                    entries.append((change, index, block))
            totals = self._totals
            lacks_some = 0 < since < self._forgotten_change  # at 0 nobody has anything
            empty = self._catalogue.index[self._catalogue.vertices == 0] if lacks_some else None
        entries.reverse()
        found, first, vertices = [], 0, 0
        for at, (change, _, block) in enumerate(entries):
            vertices += 0 if block is None else block.vertex_count
            if vertices >= budget_vertices and at + 1 < len(entries):
                found.append(_mesh_change(since, change, entries[first : at + 1], totals))
                since, first, vertices = change, at + 1, 0
        parts = [*found, _mesh_change(since, until, entries[first:], totals)]
        if empty is not None:
            parts[0] = replace(parts[0], removed=tuple((x, y, z) for x, y, z in empty.tolist()))
        return parts


def _mesh_change(
    since: int,
    change: int,
    entries: list[tuple[int, BlockIndex, MeshBlock | None]],
    totals: tuple[int, int],
) -> MeshChange:
    return MeshChange(
        since=since,
        change=change,
        blocks=tuple(block for _, _, block in entries if block is not None),
        removed=tuple(index for _, index, block in entries if block is None),
        totals=totals,
    )
