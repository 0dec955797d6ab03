# SPDX-License-Identifier: Apache-2.0
"""Quality methods at work on the live surface: region after region, while the camera is still."""

from __future__ import annotations

import logging
import time
from itertools import islice, product

import numpy as np
from jaxtyping import Float64

from worldsystem_core.surface import BlockIndex, MeshDelta
from worldsystem_mesh.config import MeshConfig
from worldsystem_mesh.mesher import Mesher
from worldsystem_mesh.methods.choice import CameraSpeed, MethodChooser, world_per_metre
from worldsystem_mesh.methods.fields import RIM, FieldBlend, RegionIndex
from worldsystem_mesh.methods.fused import differing, fused_samples, with_face_counts
from worldsystem_mesh.methods.regions import RegionMap, fused_points
from worldsystem_mesh.methods.worker import MethodResult, MethodWorker

log = logging.getLogger(__name__)
SILENCE_S = 2.0
"""A camera of which nothing was heard for so long is still."""
MAX_FIELDS, LEAST_FIELDS, MOST_FIELD_BYTES = 256, 27, 100_000_000
"""Regions whose fields are kept, 0.35 MB each at 4 blocks: fewer where they are larger, but always
as many as a region and those around it. Older ones stay as they are shown, also when a neighbour's
field is."""
_LOOKED_AT = 32
_FADING_S = 0.05
"""Of a step, for regions that fade; how long one takes grows with its blocks."""


class QualityPass:
    """Gives settled regions to methods and their results to the mesher.

    `take` and `camera` return at once; `step` takes milliseconds, the methods run in a process of
    their own. One thread.
    """

    def __init__(self, config: MeshConfig, mesher: Mesher) -> None:
        self._mesher = mesher
        self._chooser = MethodChooser(config)
        self._regions = RegionMap(config)
        self._side = config.method_region_blocks
        field_bytes = 5 * (8 * self._side + 2 * RIM + 1) ** 3
        self._most_fields = max(min(MAX_FIELDS, MOST_FIELD_BYTES // field_bytes), LEAST_FIELDS)
        self._blend = FieldBlend(self._side, only_fill=config.method_only_fill)
        self._worker = MethodWorker(config.method_timeout_s, self._side)
        self._only_fill = config.method_only_fill
        self._showing: set[RegionIndex] = set()
        self._fading: set[RegionIndex] = set()
        self._speed = CameraSpeed()
        self._metric = False
        self._heard_s = -np.inf
        self._job: tuple[RegionIndex, str, int] | None = None
        self.failures = 0
        self.seconds = 0.0

    def camera(self, stamp_ns: int, position: Float64[np.ndarray, "3"], *, metric: bool) -> None:
        """Where the camera is [world units]."""
        self._speed.add(stamp_ns, position)
        self._metric, self._heard_s = metric, time.monotonic()

    def take(self, delta: MeshDelta) -> None:
        """What fusion changed on the surface; fields of regions that changed are let go."""
        changed = self._regions.take(delta, time.monotonic())
        for region in changed:
            self._blend.fields.pop(region, None)
        lost = {region for region in changed if region not in self._regions}
        self._let_fade(self._showing & (lost if self._only_fill else changed))

    @property
    def method(self) -> str:
        """What the scheduler chooses for a dense region now."""
        if time.monotonic() - self._heard_s > SILENCE_S:
            return self._chooser.at_speed(0.0, 1.0)
        return self._chooser.at_speed(self._speed.per_second(), self._metre())

    @property
    def camera_speed(self) -> float:
        """Metres a second, or 50 voxels a second where the scale is unknown; 0 when silent."""
        if time.monotonic() - self._heard_s > SILENCE_S:
            return 0.0
        return self._speed.per_second() / self._metre()

    def methods(self) -> dict[RegionIndex, str]:
        """Regions that another method than tsdf has meshed, and which."""
        return self._regions.methods()

    def step(self, stamp_ns: int) -> MeshDelta | None:
        """Take in what is done, begin what is next; call it when the mesher is settled and idle.

        None does not say that nothing is left: regions fade as far as there is time.
        """
        end_s = time.monotonic() + _FADING_S
        while self._fading and time.monotonic() < end_s:
            if (faded := self._shown(self._fading.pop(), stamp_ns)) is not None:
                return faded
        if self._fading:
            return None
        delta = None
        if (result := self._worker.poll()) is not None and self._job is not None:
            region, method, change = self._job
            self._job = None
            self.seconds += result.seconds
            if change == self._regions.change(region):
                delta = self._finished(region, method, result, stamp_ns)
        if not self._worker.busy:
            self._begin_next()
        return delta

    def close(self) -> None:
        """End the methods' process."""
        self._worker.close()

    def _metre(self) -> float:
        return max(world_per_metre(self._metric, self._regions.voxel), 1e-12)

    def _begin_next(self) -> None:
        method = self.method
        if method == "tsdf":
            return
        for region in list(islice(self._regions.settled(time.monotonic()), _LOOKED_AT)):
            chosen = self._chooser.for_region(method, *self._regions.size(region))
            if chosen == "tsdf":
                self._keep_fused(region)
                continue
            self._start(region, chosen)
            return

    def _start(self, region: RegionIndex, method: str) -> None:
        volume = self._mesher.volume
        assert volume is not None  # there is a region only where something was fused
        points = fused_points(region, self._side, lambda index: fused_samples(volume, index))
        self._job = (region, method, self._regions.change(region))
        self._worker.start(method, points)

    def _finished(
        self, region: RegionIndex, method: str, result: MethodResult, stamp_ns: int
    ) -> MeshDelta | None:
        if result.field is None:
            self.failures += 1
            log.warning("region %s keeps tsdf, %s failed: %s", region, method, result.problem)
            self._keep_fused(region)
            return None
        self._regions.mark(region, method)
        self._blend.fields[region] = result.field
        self._showing.add(region)
        while len(self._blend.fields) > self._most_fields:
            del self._blend.fields[next(iter(self._blend.fields))]
        return self._shown(region, stamp_ns)

    def _keep_fused(self, region: RegionIndex) -> None:
        """No method meshes the region as it is now; what one filled in before goes."""
        self._regions.mark(region, "tsdf")
        self._let_fade({region} & self._showing)

    def _let_fade(self, regions: set[RegionIndex]) -> None:
        """Show these regions as they are fused. A block that stayed as it was would not meet those
        beside it; what neighbours show fades into the regions again when there is time."""
        if not regions:
            return
        self._showing -= regions
        self._fading |= regions
        within = np.array(list(product(range(self._side), repeat=3)), np.int32)
        corners = self._side * np.array(list(regions), np.int32)
        self._mesher.show_fused((corners[:, None] + within).reshape(-1, 3))

    def _of(self, index: BlockIndex) -> RegionIndex:
        return index[0] // self._side, index[1] // self._side, index[2] // self._side

    def _affected(self, region: RegionIndex) -> list[BlockIndex]:
        """The blocks that its field reaches into, but those of neighbours that show a field which
        is kept no more: without it they would lose what it filled."""
        lost = self._showing - self._blend.fields.keys() - {region}
        return [index for index in self._blend.affected(region) if self._of(index) not in lost]

    def _shown(self, region: RegionIndex, stamp_ns: int) -> MeshDelta | None:
        """Blocks that the region's field reaches into, where it changes them."""
        volume = self._mesher.volume
        if volume is None:
            return None
        index = np.array(self._affected(region), np.int32).reshape(-1, 3)
        ids = volume.numbers(index)
        index, ids = index[ids >= 0], ids[ids >= 0]
        if not len(ids):
            return None
        made = with_face_counts(self._blend.cells(index, fused_samples(volume, index)))
        changed = differing(made, self._mesher.surface.cells_of(ids))
        return self._mesher.replace_blocks(made.taken(np.flatnonzero(changed)), stamp_ns)
