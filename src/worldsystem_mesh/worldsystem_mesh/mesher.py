# SPDX-License-Identifier: Apache-2.0
"""Keyframes in, mesh deltas out: the public face of this package."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypedDict

import numpy as np
from jaxtyping import Float64

from worldsystem_core.reconstruction import Keyframe, ScaleState
from worldsystem_core.surface import BlockIndex, Mesh, MeshBlock, MeshDelta, join_blocks
from worldsystem_mesh.config import MeshConfig
from worldsystem_mesh.extraction import SurfaceExtractor
from worldsystem_mesh.launcher import Launcher
from worldsystem_mesh.surface_store import SurfaceStore
from worldsystem_mesh.view import StoredView, ViewStore, median_depth, view_from_keyframe
from worldsystem_mesh.volume import BlockVolume
from worldsystem_mesh.weld import weld, without_crumbs

BLOCK_VOXELS = 8


@dataclass(frozen=True)
class Correction:
    """What became of a request to move or remove keyframes.

    `unreachable` keyframes have left the store (or were never fused): their share of the surface
    stays where it is. `insignificant` ones moved less than `move_voxels`.
    """

    applied: tuple[int, ...]
    insignificant: tuple[int, ...] = ()
    unreachable: tuple[int, ...] = ()


class MeshStats(TypedDict):
    """Where the mesher stands; `voxel` [world units] is 0 before the first keyframe."""

    voxel: float
    sequence: int
    blocks: int
    refused_blocks: int
    mesh_blocks: int
    vertices: int
    triangles: int
    memory_bytes: int
    keyframes: int
    stored_keyframes: int
    evicted_keyframes: int
    unreachable_corrections: int
    empty_keyframes: int
    last_integrate_ms: float
    last_extract_ms: float
    last_extracted_blocks: int


class Mesher:
    """Fuses keyframes into a coloured surface and says what changed on it.

    Cost follows what changed, never the size of the map. Not safe for several threads at once.
    """

    def __init__(self, config: MeshConfig) -> None:
        self._config = config
        self._launcher = Launcher(config.device, config.threads)
        self._extractor = SurfaceExtractor(self._launcher, config.min_weight)
        self.reset()

    def reset(self) -> None:
        """Forget everything; sequence numbers begin anew."""
        self._volume: BlockVolume | None = None
        self._surface = SurfaceStore()
        self._views = ViewStore(self._config.store_mb * 1_000_000)
        self._keyframes = 0
        self._empty_keyframes = 0
        self._unreachable = 0
        self._capture_ns = 0
        self._scale = ScaleState.SCENE
        self._integrate_ms = 0.0
        self._extract_ms = 0.0
        self._extracted_blocks = 0

    def integrate(self, keyframe: Keyframe) -> int:
        """Fuse `keyframe` (in the place of the one with its id); return the blocks it went into.

        One without any usable point changes nothing, is counted, and gives 0.
        """
        start = time.perf_counter()
        view = self._compact(keyframe)
        if view is None:
            self._empty_keyframes += 1
            return 0
        if not self._forget(keyframe.id):
            self._keyframes += 1
        fused = self._fusion_volume.add(view)
        self._views.put(fused)
        self._capture_ns = max(self._capture_ns, keyframe.stamp_ns)
        self._scale = keyframe.scale
        self._integrate_ms = 1e3 * (time.perf_counter() - start)
        return len(fused.blocks)

    def move(
        self,
        world_from_cam: Mapping[int, Float64[np.ndarray, "4 4"]],
        point_scale: Mapping[int, float] | None = None,
        scale: ScaleState | None = None,
    ) -> Correction:
        """Take keyframes out of the surface and fuse them again at their new poses.

        `point_scale` is the factor on a keyframe's pointmap as it was first told. With `scale` the
        root changes its unit: the voxel grows as the keyframes do. A move is judged against the
        pose that the keyframe is fused at, so that many small ones add up. Poses are rigid and
        finite; others are refused as `unreachable`.
        """
        factors = point_scale or {}
        self._rescale_root(factors, scale)
        applied: list[int] = []
        insignificant: list[int] = []
        unreachable: list[int] = []
        for keyframe_id, pose in world_from_cam.items():
            view = self._views.get(keyframe_id)
            factor = factors.get(keyframe_id)
            if view is None or not np.isfinite(pose).all():
                unreachable.append(keyframe_id)
            elif view.displacement_voxels(pose, self._fusion_volume.voxel, factor) < (
                self._config.move_voxels
            ):
                insignificant.append(keyframe_id)
            else:
                self._fusion_volume.take_out(view)
                self._views.put(self._fusion_volume.add(view.placed(pose, factor)))
                applied.append(keyframe_id)
        self._unreachable += len(unreachable)
        return Correction(tuple(applied), tuple(insignificant), tuple(unreachable))

    def remove(self, ids: Iterable[int]) -> Correction:
        """Take keyframes out of the surface; those not in the store stay and are counted."""
        applied: list[int] = []
        unreachable: list[int] = []
        for keyframe_id in ids:
            (applied if self._forget(keyframe_id) else unreachable).append(keyframe_id)
        self._keyframes -= len(applied)
        self._unreachable += len(unreachable)
        return Correction(tuple(applied), (), tuple(unreachable))

    def extract(self, stamp_ns: int) -> MeshDelta | None:
        """What changed on the surface since the last call, or None when nothing did."""
        if self._volume is None:
            return None
        start = time.perf_counter()
        dirty = self._volume.dirty_blocks()
        base = self._surface.sequence
        blocks, gone = self._surface.update(self._extractor.surfaces(self._volume, dirty))
        self._extracted_blocks = len(dirty)
        self._extract_ms = 1e3 * (time.perf_counter() - start)
        if not blocks and not gone:
            return None
        return self._delta(blocks, gone, base, stamp_ns)

    def all_blocks(self, newer_than: int, stamp_ns: int) -> MeshDelta:
        """All that changed after sequence `newer_than`, for a client that missed something.

        Changes not extracted yet are not in it; they come with the next delta. A client from
        before a `reset` (its sequence lies ahead) is given everything.
        """
        base = newer_than if 0 <= newer_than <= self._surface.sequence else 0
        blocks, gone = self._surface.newer_than(base)
        return self._delta(blocks, gone, base, stamp_ns)

    def mesh(self, *, min_component_faces: int = 0) -> Mesh:
        """The whole surface as last extracted, welded across blocks.

        Connected pieces of fewer than `min_component_faces` faces are left out.
        """
        return without_crumbs(
            weld(join_blocks(list(self._surface.blocks.values()))), min_component_faces
        )

    def stats(self) -> MeshStats:
        """Counters and gauges for `Status`."""
        volume, views = self._volume, self._views
        volume_bytes = volume.bytes if volume else 0
        return MeshStats(
            voxel=volume.voxel if volume else 0.0,
            sequence=self._surface.sequence,
            blocks=volume.block_count if volume else 0,
            refused_blocks=volume.refused_blocks if volume else 0,
            mesh_blocks=len(self._surface.blocks),
            vertices=self._surface.vertex_count,
            triangles=self._surface.face_count,
            memory_bytes=volume_bytes + views.bytes + self._surface.bytes,
            keyframes=self._keyframes,
            stored_keyframes=len(views),
            evicted_keyframes=views.evicted,
            unreachable_corrections=self._unreachable,
            empty_keyframes=self._empty_keyframes,
            last_integrate_ms=self._integrate_ms,
            last_extract_ms=self._extract_ms,
            last_extracted_blocks=self._extracted_blocks,
        )

    def close(self) -> None:
        """Join the kernel threads; the mesher must not be used afterwards."""
        self._launcher.close()

    @property
    def _fusion_volume(self) -> BlockVolume:
        assert self._volume is not None  # a view exists only after the volume was made
        return self._volume

    def _compact(self, keyframe: Keyframe) -> StoredView | None:
        """The keyframe in voxel units; the first usable one fixes the voxel."""
        if self._volume is None:
            median = median_depth(keyframe, self._config.min_confidence)
            if not math.isfinite(median):
                return None
            voxel = self._config.voxel or median / self._config.auto_voxels
            self._volume = BlockVolume(self._config, self._launcher, voxel)
        return view_from_keyframe(keyframe, self._volume.voxel, self._config)

    def _rescale_root(self, factors: Mapping[int, float], scale: ScaleState | None) -> None:
        """Measure in the root's new unit: the same volume, each of its voxels larger."""
        if scale is None or scale is self._scale:
            return
        self._scale = scale
        held = {key: view for key in factors if (view := self._views.get(key)) is not None}
        if self._volume is None or not held:
            return
        growths = [factors[key] / view.point_scale for key, view in held.items()]
        growth = float(np.median(growths))
        self._volume.voxel *= growth
        self._views.grow(growth)

    def _forget(self, id: int) -> bool:
        view = self._views.pop(id)
        if view is None:
            return False
        self._fusion_volume.take_out(view)
        return True

    def _delta(
        self,
        blocks: tuple[MeshBlock, ...],
        removed: tuple[BlockIndex, ...],
        base_sequence: int,
        stamp_ns: int,
    ) -> MeshDelta:
        return MeshDelta(
            stamp_ns=stamp_ns,
            sequence=self._surface.sequence,
            base_sequence=base_sequence,
            block_size=BLOCK_VOXELS * (self._volume.voxel if self._volume else 0.0),
            blocks=blocks,
            removed=removed,
            total_vertices=self._surface.vertex_count,
            total_faces=self._surface.face_count,
            keyframe_count=self._keyframes,
            capture_ns=self._capture_ns,
            scale=self._scale,
        )
