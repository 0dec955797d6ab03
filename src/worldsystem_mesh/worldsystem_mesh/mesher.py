# SPDX-License-Identifier: Apache-2.0
"""Keyframes in, mesh deltas out: the public face of this package."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping

import numpy as np
from jaxtyping import Float64, Int32, Int64

from worldsystem_core.reconstruction import Keyframe, ScaleState
from worldsystem_core.surface import BlockIndex, Mesh, MeshDelta
from worldsystem_mesh.archived_view import ArchivedView
from worldsystem_mesh.cells import SurfaceCells
from worldsystem_mesh.config import MeshConfig
from worldsystem_mesh.drawing import BlockMeshes, SurfaceDrawer
from worldsystem_mesh.extraction import Extracted, SurfaceExtractor
from worldsystem_mesh.keyframe_fusion import KeyframeFusion
from worldsystem_mesh.launcher import Launcher
from worldsystem_mesh.mesher_state import Correction, MeshStats
from worldsystem_mesh.pace import Pace
from worldsystem_mesh.snapshot import SurfaceSnapshot
from worldsystem_mesh.surface_store import SurfaceStore
from worldsystem_mesh.view_archive import archive_of
from worldsystem_mesh.view_store import ViewStore
from worldsystem_mesh.volume import BlockVolume

BLOCK_VOXELS = 8
NO_BLOCKS = np.zeros(0, np.int32)
IDLE_REFUSION_S = 0.05


class Mesher:
    """Fuses keyframes into a coloured surface and says what changed on it.

    Cost follows what changed, never the size of the map. Not safe for several threads at once.
    `alive` is called now and then while many keyframes of a process before come back in one go.
    """

    def __init__(self, config: MeshConfig, alive: Callable[[], None] = lambda: None) -> None:
        self._config = config
        self._alive = alive
        self._launcher = Launcher(config.device, config.threads)
        self._drawing_launcher = Launcher("cpu", config.threads)
        self._extractor = SurfaceExtractor(self._launcher)
        self._drawer = SurfaceDrawer(self._drawing_launcher)
        self._archive = archive_of(config)
        self._begin()

    def reset(self) -> None:
        """Forget everything; sequence numbers begin anew."""
        self._release()
        if self._archive is not None:
            self._archive.clear()
        self._begin()

    def _begin(self) -> None:
        config = self._config
        self._surface = SurfaceStore(config.surface_bytes, config.page_dir)
        self._fusion = KeyframeFusion(
            config, self._launcher, self._surface, self._archive, self._alive
        )
        self._empty_keyframes = 0
        self._own: Int32[np.ndarray, "b"] = NO_BLOCKS
        self._capture_ns = 0
        self._integrate_ms = self._extract_ms = self._refusion_ms = 0.0
        self._extracted_blocks = 0
        self._delivered = self._replaced = 0
        self._pace = Pace(config.refusion_share)
        self._renewed = False
        self._has_pending = False

    @property
    def surface(self) -> SurfaceStore:
        """The surface's code by block, and what changed since when."""
        return self._surface

    @property
    def volume(self) -> BlockVolume | None:
        """The voxels; None before the first keyframe."""
        return self._fusion.volume

    @property
    def views(self) -> ViewStore:
        """The keyframes as they were fused."""
        return self._fusion.views

    @property
    def scale(self) -> ScaleState:
        """What one unit of length is."""
        return self._fusion.scale

    @property
    def begun_voxel(self) -> float:
        """Edge of a voxel for a process that is to go on in the place of this one; 0: of its own,
        as after all keyframes were removed."""
        if self.volume is None:
            return self._config.begun_voxel
        return self._fusion.voxel if self._fusion.ids else 0.0

    @property
    def is_restoring(self) -> bool:
        """Whether keyframes of a process before are still on their way into the volume."""
        return self._fusion.is_restoring

    def restore(self) -> list[ArchivedView]:
        """Have the surface of a process that died come back from `archive_dir`, with the next calls
        of `go_on` and `extract`; returns its keyframes that nobody stands in for."""
        kept = self._fusion.restore()
        self._has_pending = self._fusion.is_restoring
        self._capture_ns = max((one.stamp_ns for one in kept), default=0)
        return kept

    def integrate(self, keyframe: Keyframe) -> int:
        """Fuse `keyframe` (in the place of the one with its id); return the blocks it went into.

        One without any usable point changes nothing, is counted, and gives 0.
        """
        start = time.perf_counter()
        fused = self._fusion.add(keyframe)
        if fused is None:
            self._empty_keyframes += 1
            return 0
        self._has_pending = True
        if len(self._fusion.ids) == 1:  # the first of a map, perhaps by another clock than before
            self._capture_ns = 0
        self._capture_ns = max(self._capture_ns, keyframe.stamp_ns)
        self._integrate_ms = 1e3 * (time.perf_counter() - start)
        return len(fused.band) + len(fused.free)

    def move(
        self,
        world_from_cam: Mapping[int, Float64[np.ndarray, "4 4"]],
        point_scale: Mapping[int, float] | None = None,
        scale: ScaleState | None = None,
    ) -> Correction:
        """Have keyframes taken out of the surface and fused again at their new poses.

        `point_scale` is the factor on a keyframe's pointmap as first told. With `scale` the root
        changes its unit: the voxel grows as the keyframes do. A move is judged against the pose
        that the keyframe is fused at, so that many small ones add up. Poses are rigid and finite,
        sizes above 0; others are refused as `unreachable`.
        """
        unit = self._fusion.scale
        correction = self._fusion.move(world_from_cam, point_scale or {}, scale)
        if self._fusion.scale != unit:
            self._surface.renew()
            self._renewed = True
        self._has_pending |= bool(correction.applied or correction.insignificant)
        return correction

    def remove(self, ids: Iterable[int], heirs: Mapping[int, int] | None = None) -> Correction:
        """Have keyframes taken out of the surface; those not in the store are counted.

        What one has given for which another stands in (`heirs`: its id) stays until its blocks are
        made anew for another reason.
        """
        correction = self._fusion.remove(ids, heirs or {})
        self._has_pending |= bool(correction.applied)
        return correction

    def holds(self, id: int) -> bool:
        """Whether the keyframe is fused, or on its way back."""
        return id in self._fusion.ids

    def follow(self, keyframe: Keyframe, size: float) -> float | None:
        """A keyframe that is fused was told once more, elsewhere or in another size than `size`: a
        factor on the points that were fused. Returns the size that it has; None: it is not here.
        """
        found = self._fusion.follow(keyframe, size)
        self._has_pending |= found is not None
        return found

    def told_again(self, ids: Iterable[int]) -> None:
        """Keyframes were told once more and lie where they lay: later sizes count from now."""
        self._fusion.told_again(ids)

    def extract(self, stamp_ns: int) -> MeshDelta | None:
        """What changed on the surface since the last call, or None when nothing did.

        Before that, moved keyframes are fused anew for a while, the nearest of their blocks first:
        so much that the whole update takes about `refusion_share` longer than usual. What waits for
        longer comes with later calls.
        """
        if self.volume is None:
            return None
        if self._fusion.is_idle:
            delta = self._extract(stamp_ns)
            self._pace.note_usual(self._integrate_ms, self._extract_ms)
            return delta
        start = time.perf_counter()
        self._own = np.union1d(self._own, self._fusion.take_dirty()).astype(np.int32)
        own = len(self._own)
        integrate_ms = self._integrate_ms + 1e3 * (time.perf_counter() - start)
        self._refuse(self._pace.budget_s())
        delta = self._extract(stamp_ns)
        share = own / max(self._extracted_blocks, 1)
        self._pace.note_busy(integrate_ms, self._refusion_ms, self._extract_ms, share)
        return delta

    def go_on(self, stamp_ns: int, budget_s: float = IDLE_REFUSION_S) -> MeshDelta | None:
        """What changed while nothing new came: moved keyframes are fused anew for about `budget_s`,
        and once none waits, blocks are drawn that moved by less than `redraw_voxels`."""
        if self.volume is None or self.is_settled:
            return None
        self._refuse(budget_s)
        if not self._fusion.is_idle:
            return self._extract(stamp_ns)
        return self._draw_what_moved(stamp_ns)

    def settle(self, stamp_ns: int) -> MeshDelta | None:
        """The same without sparing time: all moved keyframes are fused anew, also those that moved
        less than `move_voxels`, and every block is drawn that moved at all."""
        if self.volume is None:
            return None
        start = time.perf_counter()
        self._fusion.finish()
        self._refusion_ms = 1e3 * (time.perf_counter() - start)
        return self._draw_what_moved(stamp_ns)

    def _draw_what_moved(self, stamp_ns: int) -> MeshDelta | None:
        """Draw what moved at all; only then is the surface settled, whichever thread asks."""
        assert self.volume is not None  # the callers have looked
        self.volume.note_pending()
        delta = self._extract(stamp_ns)
        self._has_pending = False
        return delta

    @property
    def is_settled(self) -> bool:
        """Whether the surface shows all: no moved keyframe waits, and no block that moved less than
        `redraw_voxels`."""
        return not self._has_pending and self._fusion.is_idle

    def replace_blocks(self, cells: SurfaceCells, stamp_ns: int) -> MeshDelta | None:
        """Show `cells` as these blocks' surface until they are next extracted; None: no change.

        Blocks that the volume does not hold are left out.
        """
        if self.volume is None or not len(cells):
            return None
        ids = self.volume.numbers(cells.index)
        held = np.flatnonzero(ids >= 0)
        chosen = cells.taken(held)
        given = Extracted(ids[held], chosen, self._replaced_marks(len(held)))
        base = self._delivered
        changed, gone = self._surface.update([given])
        if self._surface.sequence == base:
            return None
        self._delivered = self._surface.sequence
        return self._delta(changed, gone, base, stamp_ns)

    def show_fused(self, index: Int32[np.ndarray, "b 3"]) -> None:
        """Have these blocks drawn as they are fused, with the next delta, whatever `replace_blocks`
        had them show."""
        if self.volume is None:
            return
        ids = self.volume.numbers(index)
        ids = ids[ids >= 0]
        ids = ids[self.volume.pool.holds(ids) | self._surface.has_surface(ids)]
        self._own = np.union1d(self._own, ids).astype(np.int32)
        self._has_pending |= len(ids) > 0

    def all_blocks(self, newer_than: int, stamp_ns: int) -> MeshDelta:
        """All that changed after sequence `newer_than`, for a client that missed something.

        Changes not extracted yet are not in it; they come with the next delta. A client from
        before a `reset` (its sequence lies ahead) is given everything.
        """
        surface = self._surface
        base = newer_than if 0 <= newer_than <= surface.sequence else 0
        gone = surface.index(surface.removed_newer_than(base)).tolist()
        removed = tuple((x, y, z) for x, y, z in gone)
        cells = surface.cells(surface.ids_newer_than(base))
        return self._delta(cells, removed, base, stamp_ns)

    def snapshot(self) -> SurfaceSnapshot:
        """The whole surface as last extracted, to be drawn later and elsewhere."""
        cells = self._surface.cells(self._surface.all_ids())
        return SurfaceSnapshot(self._drawer, cells, self._fusion.voxel)

    def mesh(self, *, min_component_faces: int = 0) -> Mesh:
        """The whole surface as last extracted, as `SurfaceSnapshot.mesh` gives it."""
        return self.snapshot().mesh(min_component_faces=min_component_faces)

    def stats(self) -> MeshStats:
        """Counters and gauges for `Status`."""
        fusion, surface = self._fusion, self._surface
        volume, views = fusion.volume, fusion.views
        volume_bytes = volume.bytes if volume else 0
        volume_disk = volume.pool.disk_bytes if volume else 0
        return MeshStats(
            voxel=fusion.voxel,
            sequence=surface.sequence,
            blocks=volume.block_count if volume else 0,
            refused_blocks=volume.refused_blocks if volume else 0,
            forgotten_blocks=fusion.forgotten_blocks,
            paged_out_blocks=volume.pool.paged_out if volume else 0,
            paged_in_blocks=volume.pool.paged_in if volume else 0,
            mesh_blocks=surface.block_count,
            vertices=surface.vertex_total,
            triangles=surface.face_total,
            memory_bytes=volume_bytes + views.bytes + surface.bytes,
            disk_bytes=volume_disk + views.disk_bytes + surface.disk_bytes,
            keyframes=len(fusion.ids),
            stored_keyframes=len(views),
            evicted_keyframes=views.evicted,
            unreachable_corrections=fusion.unreachable,
            empty_keyframes=self._empty_keyframes,
            out_of_reach=volume.outside if volume else 0,
            waiting_keyframes=fusion.waiting_views,
            waiting_blocks=fusion.waiting_blocks,
            last_integrate_ms=self._integrate_ms,
            last_extract_ms=self._extract_ms,
            last_refusion_ms=self._refusion_ms,
            last_extracted_blocks=self._extracted_blocks,
        )

    def close(self) -> None:
        """Join the kernel threads and delete page files, though not the archive; nothing must be
        used afterwards."""
        self._release()
        if self._archive is not None:
            self._archive.close()
        self._launcher.close()
        self._drawing_launcher.close()

    def _replaced_marks(self, count: int) -> Int64[np.ndarray, "n"]:
        """Fingerprints that no extraction gives and none had before: such blocks always differ."""
        first = self._replaced
        self._replaced += count
        return -1 - np.arange(first, self._replaced, dtype=np.int64)

    def _release(self) -> None:
        self._fusion.close()
        self._surface.close()

    def _refuse(self, budget_s: float) -> None:
        start = time.perf_counter()
        self._fusion.work(budget_s)
        self._refusion_ms = 1e3 * (time.perf_counter() - start)

    def _extract(self, stamp_ns: int) -> MeshDelta | None:
        """Draw again what the update itself changed, and all that is dirty since."""
        volume, base = self._fusion.volume, self._delivered
        assert volume is not None  # the callers have looked
        start = time.perf_counter()
        dirty = self._fusion.take_dirty()
        if len(self._own):
            dirty = np.union1d(self._own, dirty).astype(np.int32)
        changed, gone = self._surface.update(self._extractor.surfaces(volume, dirty))
        self._own = NO_BLOCKS
        if self._renewed:
            changed, self._renewed = self._surface.cells(self._surface.all_ids()), False
        self._extracted_blocks = len(dirty)
        self._extract_ms = 1e3 * (time.perf_counter() - start)
        if self._surface.sequence == base:
            return None
        self._delivered = self._surface.sequence
        return self._delta(changed, gone, base, stamp_ns)

    def _delta(
        self,
        cells: SurfaceCells,
        removed: tuple[BlockIndex, ...],
        base_sequence: int,
        stamp_ns: int,
    ) -> MeshDelta:
        surface = self._surface
        return MeshDelta(
            stamp_ns=stamp_ns,
            sequence=surface.sequence,
            base_sequence=base_sequence,
            block_size=BLOCK_VOXELS * self._fusion.voxel,
            blocks=BlockMeshes(self._drawer, cells, self._fusion.voxel),
            removed=removed,
            total_vertices=surface.vertex_total,
            total_faces=surface.face_total,
            keyframe_count=len(self._fusion.ids),
            capture_ns=self._capture_ns,
            scale=self._fusion.scale,
        )
