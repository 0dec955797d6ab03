# SPDX-License-Identifier: Apache-2.0
"""A lasting world of splats: each keyframe adds what was not shown yet as finely, and takes back
what it sees through.

Splats hang on the keyframe that gave them, in its camera's frame, as a chunk. So a correction of
poses moves them without touching them. Voxels hash where the surface is covered already
(`coverage`): the count grows with the area that was seen, not with the time it was looked at. So
does that of the chunks: those whose keyframes newer ones stand in for are joined.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64

from worldsystem_core.geometry.sim3 import Sim3
from worldsystem_core.reconstruction import Keyframe, Successor
from worldsystem_core.splats.chunk import Chunk
from worldsystem_core.splats.coverage import Coverage, areas, widened, widths
from worldsystem_core.splats.discs import SurfacePoints, discs_at
from worldsystem_core.splats.gaussians import Gaussians
from worldsystem_core.splats.heirs import Heirs
from worldsystem_core.splats.sight import Sight, cast_doubt

NEAR_DISTANCE_SHARE = 0.01
"""Voxel edge, when none is given, by the first keyframe's median distance: 3 cm at 3 m."""
_ALONG_RAY = (0.0, -0.01, 0.01, -0.025, 0.025)
_DOUBTS = 2
_LEAST_SPLATS = 16
_RECHECK_VOXELS = 2.0
_WORTH_DROPPING = 0.005
_CHUNKS_A_TURN = 3
_MOST_HANGING = 4
_RESCALED = 1.02
_UNALIKE = 1.3
_BYTES_PER_SPLAT = 14 * 4 + 1 + 8 + 8 + 4  # its Gaussian, doubts, key, level and area


class SplatWorld:
    """Holds the splats of all keyframes by chunk, at most `most_splats`.

    `changed`, `moved` and `removed` list the chunks that a client has to be told of; `removed`
    names the chunk that took over the splats of a removed one, None when they are gone.

    `voxel` [world units] is the finest spacing at which surfaces are told apart. 0 takes that of an
    earlier world, `begun_voxel`, and when that is 0, too, a share of the first keyframe's distance;
    it holds until all keyframes are gone.
    """

    def __init__(
        self, *, voxel: float = 0.0, begun_voxel: float = 0.0, most_splats: int = 500_000
    ) -> None:
        self.chunks: dict[int, Chunk] = {}
        self.changed: dict[int, None] = {}
        self.moved: dict[int, None] = {}
        self.removed: dict[int, int | None] = {}
        self.duplicates = self.contradicted = self.replaced = self.thinned = 0
        self._most = most_splats
        self._voxel, self._begun_voxel = voxel, begun_voxel
        self._coverage: Coverage | None = None
        self._recheck: dict[int, None] = {}
        self._turn = 0
        self._growth = 1.0
        self._heirs = Heirs(self.chunks)

    def __len__(self) -> int:
        return sum(len(chunk) for chunk in self.chunks.values())

    @property
    def voxel(self) -> float:
        """Edge of the finest voxels [world units]; 0 before the first keyframe."""
        return self._coverage.voxel if self._coverage else self._voxel

    @property
    def begun_voxel(self) -> float:
        """`voxel` for a world that is to go on in the place of this one; 0: one of its own."""
        return self._coverage.voxel if self._coverage else self._begun_voxel

    @property
    def memory_bytes(self) -> int:
        """What splats and voxels take."""
        return _BYTES_PER_SPLAT * len(self) + (self._coverage.bytes if self._coverage else 0)

    def add(self, keyframe: Keyframe) -> int:
        """Take a keyframe in, its own Gaussians or discs; returns how many splats it adds."""
        self._take_out(keyframe.id)  # what it gave before covers nothing
        if keyframe.gaussians is not None:
            return self.add_gaussians(keyframe, keyframe.gaussians)
        surface = SurfacePoints.of(keyframe.pointmap, keyframe.confidence)
        chosen = surface.known
        if self._coverage is not None:
            chosen = chosen & ~self._shown_already(surface, keyframe)
        self.duplicates += int(surface.known.sum() - chosen.sum())
        found = discs_at(surface, chosen, keyframe.rgb, keyframe.confidence)
        return self.add_gaussians(keyframe, found)

    def _shown_already(self, surface: SurfacePoints, keyframe: Keyframe) -> Bool[np.ndarray, "h w"]:
        """Pixels whose disc would be a duplicate, told before it is made, by their footprints."""
        assert self._coverage is not None
        known, covered = surface.known, np.zeros(surface.known.shape, bool)
        levels = self._coverage.levels(_UNALIKE * surface.footprint[known])
        pose = Sim3.from_pose(keyframe.world_from_cam)
        covered[known] = _covered(self._coverage, surface.points[known], pose, levels)
        return covered

    def add_gaussians(self, keyframe: Keyframe, found: Gaussians) -> int:
        """As `add`, with Gaussians (in the keyframe's camera frame) from elsewhere, a network."""
        self._take_out(keyframe.id)
        self._doubt(keyframe)
        self._recheck_one()
        if not len(found):
            return 0
        coverage = self._coverage or self._begin(found)
        pose = Sim3.from_pose(keyframe.world_from_cam)
        levels = coverage.levels(widths(found))
        keys = coverage.keys(found.means, pose, levels)
        covered = _covered(coverage, found.means, pose, levels)
        self.duplicates += int(covered.sum())
        new = ~covered
        if new.sum() >= _LEAST_SPLATS:
            self._insert(keyframe.id, pose, found[new], keys[new], levels[new])
        self._keep_budget(keyframe.world_from_cam[:3, 3])
        return len(self.chunks[keyframe.id]) if keyframe.id in self.chunks else 0

    def move(
        self,
        world_from_cam: Mapping[int, Float64[np.ndarray, "4 4"]],
        point_scale: Mapping[int, float] | None = None,
    ) -> None:
        """Chunks follow the corrected poses and sizes of the keyframes that they hang on; what is
        told no sound place stays where it is."""
        told = self._heirs.places(world_from_cam, point_scale or {})
        places = {number: place for number, place in told.items() if place.is_sound}
        for number, place in places.items():
            self.chunks[number].world_from_chunk = place
            self.moved[number] = None
        self._rescale()
        for number in places:
            way = self._way(self.chunks[number])
            if way > self.voxel:
                self._recount(self.chunks[number], way)

    def hang_on(self, successors: Mapping[int, Successor]) -> None:
        """Chunks of these keyframes stay, and go along with those that stand in for them."""
        for number, successor in successors.items():
            self._heirs.stand_in(number, successor)
        for heir in {successor.id: None for successor in successors.values()}:
            hanging = self._heirs.hanging_on(heir)
            if len(hanging) > _MOST_HANGING:
                self._join([self.chunks[number] for number in hanging])

    def tell_again(self, world_from_cam: Mapping[int, Float64[np.ndarray, "4 4"]]) -> None:
        """Sizes of these keyframes, which lie there, count from now on: what hangs on them stays as
        large as it has grown."""
        for number, pose in world_from_cam.items():
            self._heirs.stand_in(number, Successor(number, pose))

    def remove(self, ids: Iterable[int]) -> None:
        """Take the chunks of withdrawn keyframes out, and those that hang on these; after the last
        one voxels begin anew, in the unit of what comes."""
        for number in self._heirs.with_predecessors(ids):
            self._take_out(number)
        if not self.chunks and self._coverage is not None:
            self._coverage, self._growth, self._begun_voxel = None, 1.0, 0.0

    def state(self) -> dict[str, np.ndarray]:
        """All but the splats, for a file: where the n chunks lie, and what hangs on what."""
        chunks = list(self.chunks.values())
        return {
            "voxel": np.array(self.voxel),
            "growth": np.array(self._growth),
            "chunks": np.array([chunk.id for chunk in chunks], np.int64),
            "poses": np.array([c.world_from_chunk.pose for c in chunks]).reshape(-1, 4, 4),
            "scales": np.array([c.world_from_chunk.scale for c in chunks]),
            "units": np.array([chunk.unit for chunk in chunks]),
            **self._heirs.arrays(),
        }

    def begin_again(
        self, state: Mapping[str, np.ndarray], gaussians: Mapping[int, Gaussians]
    ) -> None:
        """Become the world that `state` is of, with those of its chunks whose splats are given;
        only before the first keyframe."""
        if not len(gaussians):
            return
        self._coverage, self._growth = Coverage(float(state["voxel"])), float(state["growth"])
        columns = (state[name].tolist() for name in ("chunks", "scales", "units"))
        for number, scale, unit, pose in zip(*columns, state["poses"], strict=True):
            if number in gaussians:
                place = Sim3.from_pose(pose, scale)
                self.chunks[number] = Chunk.uncounted(number, place, gaussians[number], unit)
                self.changed[number] = None
                self._count_first(self.chunks[number])
        self._heirs.restore(state)

    def gaussians(self) -> Gaussians:
        """All splats in the world frame."""
        return Gaussians.joined(
            [chunk.gaussians.transformed(chunk.world_from_chunk) for chunk in self.chunks.values()]
        )

    def _join(self, chunks: list[Chunk]) -> None:
        """The largest of chunks that lie firmly to each other takes the others in."""
        far = any(chunk.id in self._recheck for chunk in chunks)
        for chunk in chunks:
            self._recount(chunk, self._way(chunk))
        into = max(chunks, key=len)
        others = [chunk for chunk in chunks if chunk is not into]
        into_from_world = into.world_from_chunk.inverse()
        moved = [c.gaussians.transformed(into_from_world @ c.world_from_chunk) for c in others]
        into.gaussians = Gaussians.joined([into.gaussians, *moved])
        for name in ("doubts", "keys", "levels", "area"):
            setattr(into, name, np.concatenate([getattr(c, name) for c in (into, *others)]))
        for chunk in others:
            del self.chunks[chunk.id]
            self._forget(chunk.id, into.id)
        self.changed[into.id] = None
        if far:
            self._recheck[into.id] = None

    def _take_out(self, number: int) -> None:
        chunk = self.chunks.pop(number, None)
        if chunk is not None:
            self._count(chunk, -1)
            self._forget(number)

    def _begin(self, found: Gaussians) -> Coverage:
        distance = float(np.median(np.linalg.norm(found.means, axis=1)))
        fixed = self._voxel or self._begun_voxel
        self._coverage = Coverage(fixed or NEAR_DISTANCE_SHARE * max(distance, 1e-6))
        return self._coverage

    def _insert(
        self,
        id: int,
        pose: Sim3,
        found: Gaussians,
        keys: Int64[np.ndarray, "n"],
        levels: Int64[np.ndarray, "n"],
    ) -> None:
        doubts = np.zeros(len(found), np.uint8)
        unit = pose.scale / self._growth
        chunk = Chunk(id, pose, found, doubts, keys, levels, areas(found), pose, unit)
        self.chunks[id] = chunk
        self._heirs.stand_alone(id)
        self.changed[id] = None
        self.removed.pop(id, None)
        self._count(chunk, 1)
        self._replace_coarser(chunk)

    def _replace_coarser(self, newest: Chunk) -> None:
        """Splats go whose voxels are shown in more detail by now; a few chunks a turn."""
        assert self._coverage is not None
        finest = int(newest.levels.min())
        for chunk in self._next_in_turn(newest):
            if chunk.levels.max() <= finest:
                continue
            goes = self._coverage.replaced(chunk.keys, chunk.levels)
            if goes.sum() > _WORTH_DROPPING * len(chunk):
                self.replaced += int(goes.sum())
                self._drop(chunk, goes)

    def _next_in_turn(self, newest: Chunk) -> list[Chunk]:
        """The newest chunks before `newest`, and some of the others one after the other."""
        others = [chunk for chunk in self.chunks.values() if chunk is not newest]
        if len(others) <= 2 * _CHUNKS_A_TURN:
            return others
        recent, rest = others[-_CHUNKS_A_TURN:], others[:-_CHUNKS_A_TURN]
        self._turn = (self._turn + _CHUNKS_A_TURN) % len(rest)
        return recent + (rest + rest)[self._turn : self._turn + _CHUNKS_A_TURN]

    def _doubt(self, keyframe: Keyframe) -> None:
        """Splats that two keyframes have seen through go."""
        chunks = list(self.chunks.values())
        counts = cast_doubt(chunks, Sight.of(keyframe), _DOUBTS)
        for chunk, count in zip(chunks, counts, strict=True):
            if count > _WORTH_DROPPING * len(chunk):
                self.contradicted += count
                self._drop(chunk, chunk.doubts >= _DOUBTS)

    def _recheck_one(self) -> None:
        """A chunk that moved far may lie on others now: what they show already goes."""
        if not self._recheck:
            return
        number = next(iter(self._recheck))
        del self._recheck[number]
        chunk, coverage = self.chunks.get(number), self._coverage
        if chunk is None or coverage is None:
            return
        self._count(chunk, -1)
        covered = _covered(coverage, chunk.gaussians.means, chunk.world_from_chunk, chunk.levels)
        self._count(chunk, 1)
        self.duplicates += int(covered.sum())
        self._drop(chunk, covered)

    def _keep_budget(self, eye: Float64[np.ndarray, "3"]) -> None:
        """While there are too many, half of a far, large chunk's splats go, and the rest widen."""
        while len(self) > self._most:
            chunk = max(self.chunks.values(), key=lambda c: len(c) * c.distance(eye))
            goes = _every_second(chunk.gaussians)
            self.thinned += int(goes.sum())
            self._drop(chunk, goes)
            chunk.gaussians = widened(chunk.gaussians)
            if chunk.id in self.chunks:
                self._recount(chunk, 0.0)

    def _drop(self, chunk: Chunk, goes: Bool[np.ndarray, "n"]) -> None:
        if not goes.any():
            return
        kept = ~goes
        if kept.sum() < _LEAST_SPLATS:
            self._count(chunk, -1)
            del self.chunks[chunk.id]
            self._forget(chunk.id)
            return
        self._count(chunk, -1, goes)
        chunk.gaussians = chunk.gaussians[kept]
        chunk.doubts, chunk.keys = chunk.doubts[kept], chunk.keys[kept]
        chunk.levels, chunk.area = chunk.levels[kept], chunk.area[kept]
        self.changed[chunk.id] = None

    def _forget(self, id: int, shown_by: int | None = None) -> None:
        self.changed.pop(id, None)
        self.moved.pop(id, None)
        self._recheck.pop(id, None)
        if shown_by is not None:  # and so has it what had gone into this one
            gone = [each for each, other in self.removed.items() if other == id]
            self.removed.update(dict.fromkeys(gone, shown_by))
        self.removed[id] = shown_by

    def _count(self, chunk: Chunk, sign: int, part: Bool[np.ndarray, "n"] | None = None) -> None:
        assert self._coverage is not None
        which = slice(None) if part is None else part
        area = np.float32(sign) * chunk.area[which]
        self._coverage.add(chunk.keys[which], chunk.levels[which], area)

    def _rescale(self) -> None:
        """Where the world's unit has changed, as when it became metric, voxels change with it; the
        chunks may have been told so one by one."""
        if self._coverage is None or not self.chunks:
            return
        chunks = self.chunks.values()
        grown = float(np.median([c.world_from_chunk.scale / c.unit for c in chunks]))
        growth = grown / self._growth
        if max(growth, 1 / growth) < _RESCALED:
            return
        self._growth = grown
        self._coverage = Coverage(self._coverage.voxel * growth)
        for chunk in chunks:
            self._count_first(chunk)

    def _way(self, chunk: Chunk) -> float:
        """How far the chunk's splats have moved at most since their voxels were counted."""
        new, old = chunk.world_from_chunk, chunk.counted_at
        turn = new.scale * new.rotation - old.scale * old.rotation
        shift, reach = float(np.linalg.norm(new.translation - old.translation)), chunk.reach
        at_most = shift + float(np.linalg.norm(turn)) * reach
        if at_most <= self.voxel:  # that is near enough, at a tenth of the cost
            return at_most
        return shift + float(np.linalg.norm(turn, ord=2)) * reach

    def _recount(self, chunk: Chunk, way: float) -> None:
        """Count the voxels of a chunk that has moved by `way` at most where they are now."""
        self._count(chunk, -1)
        self._count_first(chunk)
        if way > _RECHECK_VOXELS * self.voxel:
            self._recheck[chunk.id] = None

    def _count_first(self, chunk: Chunk) -> None:
        """Count the voxels of a chunk of which none are counted."""
        assert self._coverage is not None
        size = np.float32(chunk.world_from_chunk.scale)
        chunk.area = areas(chunk.gaussians) * size**2
        chunk.levels = self._coverage.levels(size * widths(chunk.gaussians))
        means, place = chunk.gaussians.means, chunk.world_from_chunk
        chunk.keys = self._coverage.keys(means, place, chunk.levels)
        chunk.counted_at = place
        self._count(chunk, 1)


def _covered(
    coverage: Coverage,
    means: Float32[np.ndarray, "n 3"],
    world_from_chunk: Sim3,
    levels: Int64[np.ndarray, "n"],
) -> Bool[np.ndarray, "n"]:
    """Which points show nothing new, allowing for depths that are off by 2.5 %."""
    return coverage.shows(means, world_from_chunk, levels, _ALONG_RAY)


def _every_second(found: Gaussians) -> Bool[np.ndarray, "n"]:
    """About half of the splats, as the white squares of a chequerboard as wide as they are."""
    cells = np.floor(found.means / np.maximum(widths(found), 1e-9)[:, None]).sum(axis=1)
    chosen = cells % 2 == 1
    if not 0.25 < chosen.mean() < 0.75:
        chosen = np.arange(len(found)) % 2 == 1
    return np.asarray(chosen)
