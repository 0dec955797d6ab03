# SPDX-License-Identifier: Apache-2.0
"""Every method of meshing on the same regions of a room: accuracy, completeness, time, pictures.

Accuracy is the exact distance to the true surface at samples of the mesh; completeness the
distance from what the camera saw of the region to the mesh, on depth without errors and on depth as
wrong as a network's. `poisson_fill` is what runs live: Poisson only where TSDF has nothing;
`poisson_blend` replaces TSDF. NKSR is left out where NVIDIA's package is missing.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import matplotlib as mpl
import numpy as np
import open3d as o3d
from harness import QUICK, Benchmark
from mesh_room import CAMERA, ROOM_M, Rooms, film, flight, furnished, render

from worldsystem.evaluation.surface import SurfaceDistance, area_samples
from worldsystem_core.geometry.pinhole import pointmap_from_depth
from worldsystem_core.geometry.se3 import look_at, transform
from worldsystem_core.surface import Mesh, join_blocks
from worldsystem_mesh.config import MeshConfig
from worldsystem_mesh.mesher import Mesher
from worldsystem_mesh.methods.choice import METHODS
from worldsystem_mesh.methods.fields import FieldBlend, FusedSamples, RegionField, RegionIndex
from worldsystem_mesh.methods.fused import fused_samples
from worldsystem_mesh.methods.interface import RegionMethod, RegionPoints
from worldsystem_mesh.methods.regions import RegionMap, fused_points
from worldsystem_mesh.precompile import precompile

VOXEL_M = 0.02
SIDE = 4
KEYFRAMES = 40 if QUICK else 100
REGIONS = 3 if QUICK else 10
SHIFT_M = np.array([0.29, 0.23, 0.31])
"""Moves the room, whose walls would else lie exactly between two regions."""
PICTURES = Path(__file__).parents[1] / "docs" / "pictures"
PICTURE_PX = 260


@dataclass(frozen=True, eq=False)
class Room:
    """A fused room, its truth, and the points that the camera saw [m]."""

    truth: Rooms
    mesher: Mesher
    regions: RegionMap
    seen: np.ndarray

    def region_low_m(self, region: RegionIndex) -> np.ndarray:
        return 8 * SIDE * VOXEL_M * np.array(region)

    def samples(self, index: np.ndarray) -> FusedSamples:
        volume = self.mesher.volume
        assert volume is not None
        return fused_samples(volume, index)

    def points(self, region: RegionIndex) -> RegionPoints:
        return fused_points(region, SIDE, self.samples)

    def chosen(self) -> list[RegionIndex]:
        """Regions of middling to large surface, spread over the room."""
        regions = [
            region
            for region in self.regions.settled(1e9)
            if self.regions.size(region)[0] > 800 and len(self.seen_in(region)) > 200
        ]
        step = max(1, len(regions) // REGIONS)
        return sorted(regions)[::step][:REGIONS]

    def seen_in(self, region: RegionIndex) -> np.ndarray:
        low = self.region_low_m(region)
        inside = ((self.seen >= low) & (self.seen < low + 8 * SIDE * VOXEL_M)).all(axis=1)
        return self.seen[inside]


def fused_room(*, noisy: bool) -> Room:
    truth = furnished(1)
    mesher = Mesher(MeshConfig(voxel=VOXEL_M, depth_noise=0.01))
    for frame in film(truth, KEYFRAMES, noisy=noisy):
        mesher.integrate(replace(frame, world_from_cam=shifted(frame.world_from_cam)))
    delta = mesher.settle(0)
    regions = RegionMap(MeshConfig(method_region_blocks=SIDE, method_settle_s=0.0))
    assert delta is not None
    regions.take(delta, 0.0)
    seen = []
    for pose in flight(truth, KEYFRAMES)[::4]:
        depth, _ = render(truth, pose)
        points = transform(shifted(pose), pointmap_from_depth(depth, CAMERA))
        seen.append(points[::3, ::3].reshape(-1, 3))
    return Room(truth, mesher, regions, np.concatenate(seen))


def shifted(world_from_cam: np.ndarray) -> np.ndarray:
    moved = world_from_cam.copy()
    moved[:3, 3] += SHIFT_M
    return moved


def alone(method: RegionMethod) -> Callable[[Room, RegionIndex], Mesh]:
    """The method's own mesh of a region, in the world, cut at the region's cube."""

    def make(room: Room, region: RegionIndex) -> Mesh:
        mesh = method.mesh(room.points(region))
        middle = mesh.vertices[mesh.faces].mean(axis=1)
        inside = ((middle >= 0) & (middle < 8 * SIDE)).all(axis=1)
        places = mesh.vertices.astype(np.float64) * VOXEL_M + room.region_low_m(region)
        return Mesh(
            vertices=places.astype(np.float32), colours=mesh.colours, faces=mesh.faces[inside]
        )

    return make


def joined(*, only_fill: bool) -> Callable[[Room, RegionIndex], Mesh]:
    """What is shown after Poisson was blended into the fused surface."""

    def make(room: Room, region: RegionIndex) -> Mesh:
        blend = FieldBlend(SIDE, only_fill=only_fill)
        mesh = METHODS["poisson"].mesh(room.points(region))
        blend.fields[region] = RegionField.of(mesh, SIDE)
        index = np.array(blend.affected(region), np.int32)
        index = index[(index // SIDE == np.array(region)).all(axis=1)]
        volume = room.mesher.volume
        assert volume is not None
        index = index[volume.numbers(index) >= 0]
        cells = blend.cells(index, room.samples(index))
        return join_blocks([b for b in cells.blocks(VOXEL_M) if len(b.faces)])

    return make


def ways() -> dict[str, Callable[[Room, RegionIndex], Mesh]]:
    found = {name: alone(method) for name, method in METHODS.items() if not method.missing()}
    return found | {
        "poisson_fill": joined(only_fill=True),
        "poisson_blend": joined(only_fill=False),
    }


def main() -> None:
    """Run all, write `results/mesh_methods.json` and the pictures."""
    precompile()
    bench = Benchmark("mesh_methods", id_prefix="mesh")
    for noisy in (False, True):
        _compare(bench, fused_room(noisy=noisy), "noisy" if noisy else "clean")
    bench.write()


def _compare(bench: Benchmark, room: Room, data: str) -> None:
    regions = room.chosen()
    shown: dict[str, Mesh] = {}
    missing = [f"{name} not run" for name, method in METHODS.items() if method.missing()]
    for name, make in ways().items():
        accuracy, completeness, seconds = [], [], []
        for region in regions:
            begun = time.perf_counter()
            mesh = make(room, region)
            seconds.append(time.perf_counter() - begun)
            samples = area_samples(mesh, 20_000)
            if len(samples):
                accuracy.append(100 * float(np.abs(room.truth.distance(samples - SHIFT_M)).mean()))
            off = np.minimum(SurfaceDistance(mesh)(room.seen_in(region)), 0.1)
            completeness.append(100 * float(off.mean()))
        shown[name] = make(room, max(regions, key=lambda region: room.regions.size(region)[0]))
        what = f"{len(regions)} regions of {8 * SIDE * VOXEL_M:.2f} m, {data} depth"
        note = f"{what}; {', '.join(missing)}" if missing else what
        bench.add(f"method_{name}_{data}_accuracy_cm", accuracy or [np.nan], "cm", note=note)
        bench.add(f"method_{name}_{data}_completeness_cm", completeness, "cm", note=what)
        bench.add(f"method_{name}_{data}_region_ms", [1e3 * s for s in seconds], "ms", note=what)
    _draw(shown, data)
    room.mesher.close()


def _draw(meshes: dict[str, Mesh], data: str) -> None:
    """The same region by every method, side by side."""
    mpl.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(meshes), figsize=(2.4 * len(meshes), 2.7), dpi=100)
    points = np.concatenate([mesh.vertices for mesh in meshes.values() if len(mesh.faces)])
    low, high = np.percentile(points, [2, 98], axis=0)
    for axis, (name, mesh) in zip(axes, meshes.items(), strict=True):
        axis.imshow(_shaded(mesh, low, high))
        axis.set_title(name.replace("_", " "), fontsize=9)
        axis.set_axis_off()
    figure.tight_layout()
    if not QUICK:  # the picture in the docs is of the whole flight
        figure.savefig(PICTURES / f"mesh_methods_{data}.png")
    pyplot.close(figure)


def _shaded(mesh: Mesh, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """A picture of the mesh from aslant, grey by the direction of its faces."""
    picture = np.full((PICTURE_PX, PICTURE_PX, 3), 255, np.uint8)
    if not len(mesh.faces):
        return picture
    scene = o3d.t.geometry.RaycastingScene()
    scene.add_triangles(
        o3d.core.Tensor.from_numpy(mesh.vertices.astype(np.float32)),
        o3d.core.Tensor.from_numpy(mesh.faces.astype(np.uint32)),
    )
    centre, size = (low + high) / 2, float(np.linalg.norm(high - low))
    toward = ROOM_M / 2 + SHIFT_M - centre  # from the middle of the room, where the camera was
    eye = centre + 0.75 * size * toward / np.linalg.norm(toward)
    pose = look_at(eye, centre, np.array([0.0, 0.0, 1.0]))
    v, u = np.mgrid[0:PICTURE_PX, 0:PICTURE_PX] / PICTURE_PX - 0.5
    rays = np.stack([u, v, np.full_like(u, 1.0)], axis=-1) @ pose[:3, :3].T
    both = np.concatenate([np.broadcast_to(pose[:3, 3], rays.shape), rays], axis=-1)
    hit = scene.cast_rays(o3d.core.Tensor.from_numpy(both.astype(np.float32)))
    found = np.isfinite(hit["t_hit"].numpy())
    light = np.abs(hit["primitive_normals"].numpy() @ np.array([0.4, 0.55, 0.73]))
    picture[found] = (60 + 180 * light[found])[:, None].astype(np.uint8)
    return picture


if __name__ == "__main__":
    main()
