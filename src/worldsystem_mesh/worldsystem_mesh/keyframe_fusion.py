# SPDX-License-Identifier: Apache-2.0
"""The volume and the keyframes that it is made of: they come, move, go, and come back from disk."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float64, Int32

from worldsystem_core.geometry.se3 import is_rigid
from worldsystem_core.reconstruction import Keyframe, ScaleState
from worldsystem_mesh.archived_view import ArchivedView, grown
from worldsystem_mesh.config import MeshConfig
from worldsystem_mesh.forgetting import Forgetting
from worldsystem_mesh.launcher import Launcher
from worldsystem_mesh.mesher_state import Correction
from worldsystem_mesh.refusion import Refusion
from worldsystem_mesh.restoration import Restoration
from worldsystem_mesh.sources import NotAPinhole, with_fitting_camera
from worldsystem_mesh.surface_store import SurfaceStore
from worldsystem_mesh.view import (
    StoredView,
    median_as_fused,
    median_depth,
    view_from_keyframe,
)
from worldsystem_mesh.view_archive import ViewArchive
from worldsystem_mesh.view_store import ViewStore
from worldsystem_mesh.volume import BlockVolume

log = logging.getLogger(__name__)

SAME_PLACE_VOXELS = 1e-3
SAME_SIZE = 0.01
"""The points of a keyframe that is told again are rounded otherwise."""


class KeyframeFusion:
    """Fuses keyframes, fuses moved ones anew a little at a time, and takes removed ones out.

    The first usable keyframe fixes the voxel, and so does the first after all were removed.
    `surface` says where blocks have one; `archive`, if any, keeps what is fused for a later
    process. `alive` is called between many of its keyframes that come back in one go.
    """

    def __init__(
        self,
        config: MeshConfig,
        launcher: Launcher,
        surface: SurfaceStore,
        archive: ViewArchive | None,
        alive: Callable[[], None],
    ) -> None:
        self.views = ViewStore(config.store_mb * 1_000_000, config.page_dir)
        self.scale = ScaleState.SCENE
        self.ids: set[int] = set()
        self.unreachable = 0
        self._config = config
        self._launcher = launcher
        self._surface = surface
        self._archive = archive
        self._alive = alive
        self._parts: _Parts | None = None
        self._restoration: Restoration | None = None
        self._fused = 0
        self._emptied: Int32[np.ndarray, "b"] = np.zeros(0, np.int32)

    @property
    def volume(self) -> BlockVolume | None:
        """The voxels; None before the first keyframe."""
        return self._parts.volume if self._parts else None

    @property
    def voxel(self) -> float:
        """Edge of a voxel [world units]; 0 before the first keyframe."""
        return self._parts.volume.voxel if self._parts else 0.0

    @property
    def forgotten_blocks(self) -> int:
        return self._parts.forgetting.forgotten if self._parts else 0

    @property
    def waiting_views(self) -> int:
        return self._parts.refusion.waiting_views if self._parts else 0

    @property
    def waiting_blocks(self) -> int:
        return self._parts.refusion.waiting_blocks if self._parts else 0

    @property
    def is_idle(self) -> bool:
        """Whether no keyframe waits to be fused anew."""
        return (self._parts is None or self._parts.refusion.is_idle) and not self.is_restoring

    @property
    def is_restoring(self) -> bool:
        """Whether keyframes of a process before are still on their way into the volume."""
        return self._restoration is not None

    def add(self, keyframe: Keyframe) -> StoredView | None:
        """Fuse `keyframe` and return its view with its blocks; None without any usable point.

        One that takes another's place waits with the blocks of both.
        """
        view = self._compact(keyframe)
        if view is None:
            return None
        if keyframe.id in self.ids:
            self._bring_back()
        elif self._restoration is not None:
            self._restoration.give_up_id(keyframe.id)
        held = self.views.outline(view.id)
        if held is None:
            fused = self._made.volume.add(view)
            self._fused += 1
        else:
            self._let_go_of_left_by(view.id)
            self._made.refusion.forget(view.id)
            fused = self._made.volume.touch(replace(view, order=held.order))
        self.views.put(fused)
        self._made.refusion.note_added(fused, is_fused=held is None)
        if self.is_restoring:
            self._made.forgetting.note(fused.band, fused.order)
        else:
            self._made.forgetting.step(fused.band, self._fused)
        if not self.ids:
            self.scale = keyframe.scale  # afterwards the root says when it changes
        self.ids.add(keyframe.id)
        if self._archive is not None:
            self._archive.put(fused, keyframe, self.voxel, self.scale)
        return fused

    def follow(self, keyframe: Keyframe, size: float) -> float | None:
        """One that is fused was told once more: it goes where it lies now, and grows to the size
        that its points have. Returns that as a factor on those that were fused: `size`, as it is
        known, unless they say otherwise. None: it is not here.
        """
        self._bring_back()
        held = self._outline(keyframe.id)
        if held is None:
            return None
        median = median_as_fused(keyframe, self._config.min_confidence)
        found = held.scale * median / held.median
        if math.isfinite(found) and abs(found / size - 1.0) > SAME_SIZE:
            size = found
        self.move({keyframe.id: keyframe.world_from_cam}, {keyframe.id: size}, None)
        self.told_again((keyframe.id,))
        return size

    def move(
        self,
        world_from_cam: Mapping[int, Float64[np.ndarray, "4 4"]],
        point_scale: Mapping[int, float],
        scale: ScaleState | None,
    ) -> Correction:
        """As `Mesher.move`; what moved is fused anew by `work`."""
        self._bring_back()
        sized = {number: size for number, size in point_scale.items() if 0.0 < size < math.inf}
        self._rescale_root(sized, scale)
        applied: list[int] = []
        insignificant: list[int] = []
        unreachable: list[int] = []
        for number, pose in world_from_cam.items():
            held = self._outline(number)
            is_odd = (number in point_scale and number not in sized) or not is_rigid(pose)
            if held is None or is_odd:
                unreachable.append(number)
                continue
            size = sized.get(number, self._newest(held).scale)
            far = self._move_one(held, held.placed(pose, float(size)))
            (applied if far else insignificant).append(number)
        self.unreachable += len(unreachable)
        return Correction(tuple(applied), tuple(insignificant), tuple(unreachable))

    def remove(self, ids: Iterable[int], heirs: Mapping[int, int]) -> Correction:
        """As `Mesher.remove`."""
        self._bring_back()
        had_any = bool(self.ids)
        applied: list[int] = []
        unreachable: list[int] = []
        for number in ids:
            held = self._outline(number)
            self.ids.discard(number)  # also of one that has left the store
            if held is None:
                if self._archive is not None and number not in heirs:
                    self._archive.drop(number)  # it would come back after a crash
                unreachable.append(number)
                continue
            self._remove_one(held, self._heir(held, heirs.get(number)))
            applied.append(number)
        if had_any and not self.ids and self._restoration is not None:
            self._give_up_restoration()
        self.unreachable += len(unreachable)
        return Correction(tuple(applied), (), tuple(unreachable))

    def told_again(self, ids: Iterable[int]) -> None:
        """Keyframes were told once more and lie where they lay: sizes count from now."""
        if self._archive is not None:
            for number in ids:
                self._archive.told_again(number)

    def take_dirty(self) -> Int32[np.ndarray, "b"]:
        """Blocks to be drawn again since the last call, in ascending order."""
        dirty = self._made.volume.dirty_blocks()
        if not len(self._emptied):
            return dirty
        emptied, self._emptied = self._emptied, self._emptied[:0]
        return np.union1d(emptied, dirty).astype(np.int32)

    def work(self, budget_s: float) -> None:
        """Fuse moved keyframes, and those of before, anew for about `budget_s`."""
        end = time.perf_counter() + budget_s
        if self._restoration is not None:
            self._restore(end)
        elif self._parts is not None:
            self._parts.refusion.work(budget_s)

    def finish(self) -> None:
        """Work until nothing waits, also not what moved by less than `move_voxels`."""
        while self._restoration is not None:
            self._restore(time.perf_counter() + 1.0)
        self._made.refusion.finish()

    def restore(self) -> list[ArchivedView]:
        """Have the keyframes of the archive come back, with the next calls of `work`; returns those
        that nobody stands in for."""
        kept = self._archive.kept() if self._archive is not None else []
        if not kept or self._archive is None or self._parts is not None:
            return []
        made = self._begin(kept[-1].voxel)
        self.scale, self._fused = kept[-1].unit, kept[-1].view.order
        self._restoration = Restoration(
            self._archive,
            made.volume,
            self.views,
            made.refusion,
            made.forgetting,
            self.ids.discard,
            self._alive,
        )
        live = [view for view in kept if view.heir is None]
        self.ids |= {view.view.id for view in live}
        return live

    def close(self) -> None:
        """Give up page files; nothing must be used afterwards."""
        if self._parts is not None:
            self._parts.volume.close()
        self.views.close()

    @property
    def _made(self) -> _Parts:
        assert self._parts is not None  # a view exists only after the volume was made
        return self._parts

    def _begin(self, voxel: float) -> _Parts:
        return self._begin_in(BlockVolume(self._config, self._launcher, voxel))

    def _begin_in(self, volume: BlockVolume) -> _Parts:
        refusion = Refusion(volume, self.views)
        after = self._config.forget_keyframes
        forgetting = Forgetting(volume, self._surface, after, refusion)
        self._parts = _Parts(volume, refusion, forgetting)
        return self._parts

    def _begin_anew(self, voxel: float) -> None:
        """All that was fused has been removed: at once no block has voxels, and a voxel is another
        length. Blocks keep their numbers, by which their surface is known and told as gone."""
        volume, forgotten = self._made.volume, self.forgotten_blocks
        for number in list(self.views.ids):
            self.views.pop(number)
        volume.pool.clear()
        self._emptied = self._surface.all_ids()
        volume.voxel = voxel
        self._begin_in(volume).forgetting.forgotten = forgotten

    def _compact(self, keyframe: Keyframe) -> StoredView | None:
        """The keyframe as it is fused; where there is no other, it fixes the voxel."""
        try:
            fitting = with_fitting_camera(keyframe)
        except NotAPinhole as error:
            log.warning("keyframe %d is left out: %s", keyframe.id, error)
            return None
        view = view_from_keyframe(fitting, self._config, self._fused + 1)
        if view is not None and not self.ids and self._restoration is None:
            self._begin_with(keyframe)
        return view

    def _begin_with(self, keyframe: Keyframe) -> None:
        """Make the volume for the first keyframe, or for the first after all were removed."""
        median = median_depth(keyframe, self._config.min_confidence)
        fresh = self._config.voxel or median / self._config.auto_voxels
        if self._parts is None:
            self._begin(self._config.voxel or self._config.begun_voxel or fresh)
        else:
            self._begin_anew(fresh)

    def _outline(self, id: int) -> StoredView | None:
        """The keyframe as it is fused, unless it was withdrawn and has only still to go."""
        return self.views.outline(id) if id in self.ids else None

    def _newest(self, held: StoredView) -> StoredView:
        """The keyframe as it was told last, which it may still have to become."""
        return self._made.refusion.destination(held.id) or held

    def _move_one(self, held: StoredView, there: StoredView) -> bool:
        """Whether it goes far enough to be fused anew."""
        refusion = self._made.refusion
        gap = held.displacement(there) / self.voxel
        far = gap >= self._config.move_voxels or refusion.planned(there.id) is not None
        if far:
            self._let_go_of_left_by(there.id)
            refusion.move(there)
        elif gap > SAME_PLACE_VOXELS:
            refusion.move_at_the_end(there)
        else:
            refusion.stay(there.id)
        if self._archive is not None:
            self._archive.place(there, self.voxel, self.scale)
        return far

    def _heir(self, gone: StoredView, told: int | None) -> int | None:
        """Who stands in for a keyframe: the one that was `told`, or where that one was never fused,
        the nearest, of those that are about to move only where there is no other."""
        if told is None or self._outline(told) is not None:
            return told
        others = [view for view in self.views.outlines() if view.id in self.ids]
        return self._made.refusion.best_heir(gone, others)

    def _remove_one(self, held: StoredView, heir: int | None) -> None:
        stays = heir is not None and heir in self.views
        if stays and heir is not None and self._restoration is not None:
            self._restoration.leave_later(held.id, held.order, heir)
        else:
            stays = self._made.refusion.remove(held.id, heir)
        if not stays:
            self._let_go_of_left_by(held.id)
        if self._archive is None:
            return
        if stays and heir is not None:
            self._archive.leave(held.id, heir, held.band)
        else:
            self._archive.drop(held.id)

    def _let_go_of_left_by(self, heir: int) -> None:
        """What this keyframe stands in for is not where it belongs any more."""
        if self._restoration is not None:
            self._restoration.heir_moved(heir)
        if self._archive is not None:
            self._archive.drop_left_by(heir)

    def _rescale_root(self, factors: Mapping[int, float], scale: ScaleState | None) -> None:
        """Let the voxel grow with the keyframes when the root changes its unit, and at once all
        that is known in the old one: they may be told one by one, and fused anew meanwhile."""
        if scale is None or scale == self.scale or self._parts is None:
            return
        held = [view for view in map(self._outline, factors) if view is not None]
        sizes = [factors[view.id] / self._newest(view).scale for view in held]
        if not sizes:
            return  # it is told of others, and of ours when it is their turn
        self.scale = scale
        ratio = float(np.median(sizes))
        self._parts.volume.voxel *= ratio
        for view in self.views.outlines():
            self.views.update(grown(view, ratio))
        self._parts.refusion.rescale(ratio)
        if self._restoration is not None:
            self._restoration.rescale(ratio, self.voxel, scale)
        if self._archive is not None:
            self._archive.rescale_left(ratio, self.voxel, scale)

    def _bring_back(self) -> None:
        """Have the keyframes of before in the store: what follows is about them."""
        if self._restoration is not None:
            self._restoration.bring_back()

    def _give_up_restoration(self) -> None:
        """All keyframes of before were removed: the next one begins a map of its own."""
        self._restoration = None
        if self._archive is not None:
            self._archive.clear()  # also of what those stood in for that were damaged

    def _restore(self, end: float) -> None:
        assert self._restoration is not None  # the caller has looked
        if self._restoration.go_on(end):
            self._restoration = None


@dataclass(frozen=True)
class _Parts:
    """What the first keyframe makes."""

    volume: BlockVolume
    refusion: Refusion
    forgetting: Forgetting
