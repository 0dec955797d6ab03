# SPDX-License-Identifier: Apache-2.0
"""Keyframes in, mesh deltas out: the public face of this package."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np
from jaxtyping import Float64, Int64

from worldsystem_core.reconstruction import Keyframe, ScaleState
from worldsystem_core.surface import BlockIndex, Mesh, MeshDelta
from worldsystem_mesh.cells import SurfaceCells
from worldsystem_mesh.config import MeshConfig
from worldsystem_mesh.drawing import BlockMeshes, SurfaceDrawer
from worldsystem_mesh.extraction import Extracted, SurfaceExtractor
from worldsystem_mesh.forgetting import Forgetting
from worldsystem_mesh.launcher import Launcher
from worldsystem_mesh.mesher_state import Correction, MeshStats
from worldsystem_mesh.pace import Pace
from worldsystem_mesh.refusion import Refusion
from worldsystem_mesh.snapshot import SurfaceSnapshot
from worldsystem_mesh.sources import NotAPinhole, with_fitting_camera
from worldsystem_mesh.surface_store import SurfaceStore
from worldsystem_mesh.view import StoredView, median_depth, view_from_keyframe
from worldsystem_mesh.view_store import ViewStore
from worldsystem_mesh.volume import BlockVolume

log = logging.getLogger(__name__)

BLOCK_VOXELS = 8
IDLE_REFUSION_S = 0.05


class Mesher:
    """Fuses keyframes into a coloured surface and says what changed on it.

    Cost follows what changed, never the size of the map. Not safe for several threads at once.
    """

    def __init__(self, config: MeshConfig) -> None:
        self._config = config
        self._launcher = Launcher(config.device, config.threads)
        self._drawing_launcher = Launcher("cpu", config.threads)
        self._extractor = SurfaceExtractor(self._launcher)
        self._drawer = SurfaceDrawer(self._drawing_launcher)
        self._volume: BlockVolume | None = None
        self._surface = SurfaceStore(0)
        self._views = ViewStore(0)
        self.reset()

    def reset(self) -> None:
        """Forget everything; sequence numbers begin anew."""
        self._release()
        config = self._config
        self._volume = None
        self._refusion: Refusion | None = None
        self._forgetting: Forgetting | None = None
        self._surface = SurfaceStore(config.memory_mb * 1_000_000 // 4, config.page_dir)
        self._views = ViewStore(config.store_mb * 1_000_000, config.page_dir)
        self._keyframes: set[int] = set()
        self._fused = self._empty_keyframes = self._unreachable = 0
        self._capture_ns = 0
        self._scale = ScaleState.SCENE
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
        return self._volume

    @property
    def views(self) -> ViewStore:
        """The keyframes as they were fused."""
        return self._views

    def integrate(self, keyframe: Keyframe) -> int:
        """Fuse `keyframe` (in the place of the one with its id); return the blocks it went into.

        One without any usable point changes nothing, is counted, and gives 0.
        """
        start = time.perf_counter()
        view = self._compact(keyframe)
        if view is None:
            self._empty_keyframes += 1
            return 0
        fused = self._put(view)
        self._has_pending = True
        self._keyframes.add(keyframe.id)
        self._capture_ns, self._scale = max(self._capture_ns, keyframe.stamp_ns), keyframe.scale
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
        that the keyframe is fused at, so that many small ones add up. Poses are rigid and finite;
        others are refused as `unreachable`.
        """
        factors = point_scale or {}
        root_scale = self._rescale_root(factors, scale)
        applied: list[int] = []
        insignificant: list[int] = []
        unreachable: list[int] = []
        for number, pose in world_from_cam.items():
            held = self._views.outline(number)
            if held is None or not np.isfinite(pose).all():
                unreachable.append(number)
                continue
            there = held.placed(pose, float(factors.get(number, held.scale)))
            gap = held.displacement(there, root_scale) / self._fusion_volume.voxel
            self._has_pending = True
            if gap >= self._config.move_voxels or self._fusing.planned(number) is not None:
                self._fusing.move(there)
                applied.append(number)
            else:
                if root_scale != 1.0:
                    self._views.update(there)
                self._fusing.move_at_the_end(there)
                insignificant.append(number)
        self._unreachable += len(unreachable)
        return Correction(tuple(applied), tuple(insignificant), tuple(unreachable))

    def remove(self, ids: Iterable[int], heirs: Mapping[int, int] | None = None) -> Correction:
        """Have keyframes taken out of the surface; those not in the store are counted.

        What one has given for which another stands in (`heirs`: its id) stays until its blocks are
        made anew for another reason.
        """
        applied: list[int] = []
        unreachable: list[int] = []
        for number in ids:
            if number in self._views and number in self._keyframes:
                self._fusing.remove(number, (heirs or {}).get(number))
                self._has_pending = True
                self._keyframes.discard(number)
                applied.append(number)
            else:
                unreachable.append(number)
        self._unreachable += len(unreachable)
        return Correction(tuple(applied), (), tuple(unreachable))

    def extract(self, stamp_ns: int) -> MeshDelta | None:
        """What changed on the surface since the last call, or None when nothing did.

        Before that, moved keyframes are fused anew for a while, the nearest of their blocks first:
        so much that the whole update takes about `refusion_share` longer than usual. What waits for
        longer comes with later calls.
        """
        if self._volume is None:
            return None
        if self._refusion is None or self._refusion.is_idle:
            delta = self._extract(stamp_ns)
            self._pace.note_usual(self._integrate_ms, self._extract_ms)
            return delta
        self._refuse(self._pace.budget_s())
        delta = self._extract(stamp_ns)
        self._pace.note_busy(self._refusion_ms, self._extract_ms)
        return delta

    def go_on(self, stamp_ns: int) -> MeshDelta | None:
        """What changed while nothing new came: moved keyframes are fused anew for a while, and
        once none waits, blocks are drawn that moved by less than `redraw_voxels`."""
        if self._volume is None or self.is_settled:
            return None
        self._refuse(IDLE_REFUSION_S)
        if self._fusing.is_idle:
            self._volume.note_pending()
            self._has_pending = False
        return self._extract(stamp_ns)

    def settle(self, stamp_ns: int) -> MeshDelta | None:
        """The same without sparing time: all moved keyframes are fused anew, also those that moved
        less than `move_voxels`, and every block is drawn that moved at all."""
        if self._volume is None:
            return None
        start = time.perf_counter()
        self._fusing.finish()
        self._refusion_ms = 1e3 * (time.perf_counter() - start)
        self._volume.note_pending()
        self._has_pending = False
        return self._extract(stamp_ns)

    @property
    def is_settled(self) -> bool:
        """Whether no moved keyframe waits, and no block that moved less than `redraw_voxels`."""
        return not self._has_pending and (self._refusion is None or self._refusion.is_idle)

    def replace_blocks(self, cells: SurfaceCells, stamp_ns: int) -> MeshDelta | None:
        """Show `cells` as these blocks' surface until they are next extracted; None: no change.

        Blocks that the volume does not hold are left out.
        """
        if self._volume is None or not len(cells):
            return None
        ids = self._volume.numbers(cells.index)
        held = np.flatnonzero(ids >= 0)
        chosen = cells.taken(held)
        given = Extracted(ids[held], chosen, self._replaced_marks(len(held)))
        base = self._delivered
        changed, gone = self._surface.update([given])
        if self._surface.sequence == base:
            return None
        self._delivered = self._surface.sequence
        return self._delta(changed, gone, base, stamp_ns)

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
        return SurfaceSnapshot(self._drawer, cells, self._voxel)

    def mesh(self, *, min_component_faces: int = 0) -> Mesh:
        """The whole surface as last extracted, as `SurfaceSnapshot.mesh` gives it."""
        return self.snapshot().mesh(min_component_faces=min_component_faces)

    def stats(self) -> MeshStats:
        """Counters and gauges for `Status`."""
        volume, views, surface, waiting = self._volume, self._views, self._surface, self._refusion
        volume_bytes = volume.bytes if volume else 0
        volume_disk = volume.pool.disk_bytes if volume else 0
        return MeshStats(
            voxel=self._voxel,
            sequence=surface.sequence,
            blocks=volume.block_count if volume else 0,
            refused_blocks=volume.refused_blocks if volume else 0,
            forgotten_blocks=self._forgetting.forgotten if self._forgetting else 0,
            paged_out_blocks=volume.pool.paged_out if volume else 0,
            paged_in_blocks=volume.pool.paged_in if volume else 0,
            mesh_blocks=surface.block_count,
            vertices=surface.vertex_total,
            triangles=surface.face_total,
            memory_bytes=volume_bytes + views.bytes + surface.bytes,
            disk_bytes=volume_disk + views.disk_bytes + surface.disk_bytes,
            keyframes=len(self._keyframes),
            stored_keyframes=len(views),
            evicted_keyframes=views.evicted,
            unreachable_corrections=self._unreachable,
            empty_keyframes=self._empty_keyframes,
            out_of_reach=volume.outside if volume else 0,
            waiting_keyframes=waiting.waiting_views if waiting else 0,
            waiting_blocks=waiting.waiting_blocks if waiting else 0,
            last_integrate_ms=self._integrate_ms,
            last_extract_ms=self._extract_ms,
            last_refusion_ms=self._refusion_ms,
            last_extracted_blocks=self._extracted_blocks,
        )

    def close(self) -> None:
        """Join the kernel threads and delete page files; the mesher must not be used afterwards."""
        self._release()
        self._launcher.close()
        self._drawing_launcher.close()

    def _replaced_marks(self, count: int) -> Int64[np.ndarray, "n"]:
        """Fingerprints that no extraction gives and none had before: such blocks always differ."""
        first = self._replaced
        self._replaced += count
        return -1 - np.arange(first, self._replaced, dtype=np.int64)

    @property
    def _voxel(self) -> float:
        return self._volume.voxel if self._volume else 0.0

    @property
    def _fusion_volume(self) -> BlockVolume:
        assert self._volume is not None  # a view exists only after the volume was made
        return self._volume

    @property
    def _fusing(self) -> Refusion:
        assert self._refusion is not None  # made together with the volume
        return self._refusion

    def _release(self) -> None:
        if self._volume is not None:
            self._volume.close()
        self._views.close()
        self._surface.close()

    def _compact(self, keyframe: Keyframe) -> StoredView | None:
        """The keyframe as it is fused; the first usable one fixes the voxel."""
        if self._volume is None:
            median = median_depth(keyframe, self._config.min_confidence)
            if not math.isfinite(median):
                return None
            voxel = self._config.voxel or median / self._config.auto_voxels
            self._volume = BlockVolume(self._config, self._launcher, voxel)
            self._refusion = Refusion(self._volume, self._views)
            after = self._config.forget_keyframes
            self._forgetting = Forgetting(self._volume, self._surface, after)
        try:
            fitting = with_fitting_camera(keyframe)
        except NotAPinhole as error:
            log.warning("keyframe %d is left out: %s", keyframe.id, error)
            return None
        return view_from_keyframe(fitting, self._config, self._fused + 1)

    def _put(self, view: StoredView) -> StoredView:
        """Fuse a new view; one that takes another's place waits with the blocks of both."""
        held = self._views.outline(view.id)
        if held is None:
            fused = self._fusion_volume.add(view)
            self._fused += 1
        else:
            self._fusing.forget(view.id)
            fused = self._fusion_volume.touch(replace(view, order=held.order))
        self._views.put(fused)
        self._fusing.note_added(fused, is_fused=held is None)
        if self._forgetting is not None:
            self._forgetting.step(fused.band, self._fused)
        return fused

    def _rescale_root(self, factors: Mapping[int, float], scale: ScaleState | None) -> float:
        """Let the voxel grow with the keyframes when the root changes its unit."""
        if scale is None or scale == self._scale or self._volume is None:
            return 1.0
        self._scale = scale
        held = {number: self._views.outline(number) for number in factors}
        grown = [factors[number] / view.scale for number, view in held.items() if view]
        ratio = float(np.median(grown)) if grown else 1.0
        self._volume.voxel *= ratio
        self._surface.renew()
        self._renewed = True
        return ratio

    def _refuse(self, budget_s: float) -> None:
        start = time.perf_counter()
        self._fusing.work(budget_s)
        self._refusion_ms = 1e3 * (time.perf_counter() - start)

    def _extract(self, stamp_ns: int) -> MeshDelta | None:
        volume, base = self._fusion_volume, self._delivered
        start = time.perf_counter()
        dirty = volume.dirty_blocks()
        changed, gone = self._surface.update(self._extractor.surfaces(volume, dirty))
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
            block_size=BLOCK_VOXELS * self._voxel,
            blocks=BlockMeshes(self._drawer, cells, self._voxel),
            removed=removed,
            total_vertices=surface.vertex_total,
            total_faces=surface.face_total,
            keyframe_count=len(self._keyframes),
            capture_ns=self._capture_ns,
            scale=self._scale,
        )
