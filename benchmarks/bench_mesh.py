# SPDX-License-Identifier: Apache-2.0
"""Cost and quality of the incremental mesh, beside Open3D's VoxelBlockGrid on the same keyframes.

A camera flies through a row of furnished rooms; depth is ray-cast and made as wrong as that of
learned multi-view stereo (0.8 % of low frequency, 0.1 % of pixel noise). Open3D 0.20 truncates
pixel coordinates where they should be rounded; its principal point is shifted by half a pixel
here, which makes it five times more accurate: the comparison is with Open3D at its best.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import cv2
import numpy as np
import open3d as o3d
from harness import QUICK, Benchmark

from worldsystem.evaluation.surface import SurfaceDistance, evaluate_surface
from worldsystem_core.frames import Camera
from worldsystem_core.geometry.pinhole import pointmap_from_depth
from worldsystem_core.geometry.se3 import look_at, transform
from worldsystem_core.reconstruction import Keyframe
from worldsystem_core.surface import Mesh
from worldsystem_mesh.config import MeshConfig
from worldsystem_mesh.mesher import Mesher
from worldsystem_mesh.precompile import precompile
from worldsystem_mesh.view import median_depth

ROOMS = 3 if QUICK else 6
KEYFRAMES_PER_ROOM = 20 if QUICK else 40
ROOM_SIZE = np.array([6.0, 4.5, 2.7])
CAMERA = Camera.from_horizontal_fov(320, 180, 1.2)
LOW_FREQUENCY_NOISE = 0.008
PIXEL_NOISE = 0.001
DRIFT = 0.15
EXTRACT_EVERY = 5
WARM_UP = 3
UP = np.array([0.0, 0.0, 1.0])


@dataclass(frozen=True, eq=False)
class Scene:
    """Rooms in a row along x, as triangles and as something that rays can hit."""

    mesh: Mesh
    rays: o3d.t.geometry.RaycastingScene


def furnished_rooms(count: int, rng: np.random.Generator) -> Scene:
    """A hall of `count` rooms' length with boxes and balls standing in it."""
    length = np.array([count * ROOM_SIZE[0], *ROOM_SIZE[1:]])
    parts = [o3d.geometry.TriangleMesh.create_box(*length)]
    for _ in range(10 * count):
        size = rng.uniform([0.3, 0.3, 0.3], [1.0, 0.8, 1.1])
        side = rng.choice([0.05, ROOM_SIZE[1] - 0.05 - size[1]])
        part = o3d.geometry.TriangleMesh.create_box(*size)
        part.translate([rng.uniform(0.1, length[0] - 1.1), side, 0.0])
        parts.append(part)
    for _ in range(5 * count):
        radius = rng.uniform(0.15, 0.35)
        part = o3d.geometry.TriangleMesh.create_sphere(radius, resolution=40)
        part.translate([*rng.uniform([0.5, 1.0], length[:2] - [0.5, 1.0]), radius])
        parts.append(part)
    whole = parts[0]
    for part in parts[1:]:
        whole += part
    vertices = np.asarray(whole.vertices, dtype=np.float32)
    faces = np.asarray(whole.triangles, dtype=np.int32)
    rays = o3d.t.geometry.RaycastingScene()
    rays.add_triangles(
        o3d.core.Tensor.from_numpy(vertices), o3d.core.Tensor.from_numpy(faces.astype(np.uint32))
    )
    colours = np.zeros((len(vertices), 3), np.uint8)
    return Scene(Mesh(vertices=vertices, colours=colours, faces=faces), rays)


def flight_pose(at: float, rooms: int) -> np.ndarray:
    """Pose at share `at` of a flight along the hall, turning all the while."""
    x = 1.0 + at * (rooms * ROOM_SIZE[0] - 2.0)
    turned = at * 2 * np.pi * 1.5 * rooms
    eye = np.array([x, ROOM_SIZE[1] / 2 + 0.3 * np.sin(2 * x), 1.4 + 0.2 * np.sin(x)])
    gaze = np.array([np.cos(turned), np.sin(turned), -0.25 + 0.2 * np.sin(1.3 * turned)])
    return look_at(eye, eye + gaze, UP)


def true_depth(scene: Scene, world_from_cam: np.ndarray) -> np.ndarray:
    v, u = np.mgrid[0 : CAMERA.height, 0 : CAMERA.width]
    rays = np.stack(
        [(u - CAMERA.cx) / CAMERA.fx, (v - CAMERA.cy) / CAMERA.fy, np.ones(u.shape)], axis=-1
    )
    eye = np.broadcast_to(world_from_cam[:3, 3], rays.shape)
    both = np.concatenate([eye, rays @ world_from_cam[:3, :3].T], axis=-1).astype(np.float32)
    return np.asarray(scene.rays.cast_rays(o3d.core.Tensor.from_numpy(both))["t_hit"].numpy())


def learned_depth(depth: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Depth with the errors of a network: smooth warping and a little pixel noise."""
    coarse = rng.normal(0.0, LOW_FREQUENCY_NOISE, (5, 8)).astype(np.float32)
    smooth = cv2.resize(coarse, depth.shape[::-1], interpolation=cv2.INTER_CUBIC)
    pixel = rng.normal(0.0, PIXEL_NOISE, depth.shape).astype(np.float32)
    return np.asarray(depth * (1.0 + smooth + pixel))


def fly(scene: Scene, rng: np.random.Generator) -> tuple[list[Keyframe], np.ndarray]:
    """Keyframes of the flight, and the surface points that its camera saw."""
    count, keyframes, seen = ROOMS * KEYFRAMES_PER_ROOM, [], []
    for i in range(count):
        pose = flight_pose(i / (count - 1), ROOMS)
        depth = true_depth(scene, pose)
        true_points = transform(pose, pointmap_from_depth(depth, CAMERA))
        seen.append(true_points[::6, ::6].reshape(-1, 3))
        checker = np.floor(4.0 * true_points + 1e-4).sum(axis=-1) % 2
        shade = np.clip(90 + 60 * np.sin(true_points) + 50 * checker[..., None], 0, 255)
        keyframes.append(
            Keyframe(
                id=i,
                frame_id=i,
                stamp_ns=i,
                world_from_cam=pose,
                camera=CAMERA,
                pointmap=pointmap_from_depth(learned_depth(depth, rng), CAMERA),
                confidence=np.ones(depth.shape, np.float32),
                rgb=np.nan_to_num(shade).astype(np.uint8),
            )
        )
    return keyframes, np.concatenate(seen)


class Open3DGrid:
    """Open3D's volume with our voxel, band and weight threshold, blocks of 8³."""

    def __init__(self, voxel: float, depth_max: float, config: MeshConfig) -> None:
        core = o3d.core
        self._config = config
        self._depth_max = depth_max
        self._K = core.Tensor.from_numpy(
            CAMERA.K + 0.5 * np.array([[0, 0, 1], [0, 0, 1], [0, 0, 0]])
        )
        self._grid = o3d.t.geometry.VoxelBlockGrid(
            ("tsdf", "weight", "color"),
            (core.float32, core.float32, core.float32),
            [core.SizeVector([1]), core.SizeVector([1]), core.SizeVector([3])],
            voxel,
            8,
            50_000,
            core.Device("CPU:0"),
        )

    def integrate(self, keyframe: Keyframe) -> None:
        image = o3d.t.geometry.Image
        extrinsic = o3d.core.Tensor.from_numpy(np.linalg.inv(keyframe.world_from_cam))
        depth = image(o3d.core.Tensor.from_numpy(np.ascontiguousarray(keyframe.pointmap[..., 2])))
        colour = image(o3d.core.Tensor.from_numpy(keyframe.rgb.astype(np.float32)))
        limits = (1.0, self._depth_max, self._config.truncation_voxels)
        blocks = self._grid.compute_unique_block_coordinates(depth, self._K, extrinsic, *limits)
        self._grid.integrate(blocks, depth, colour, self._K, self._K, extrinsic, *limits)

    def mesh(self) -> Mesh:
        found = self._grid.extract_triangle_mesh(self._config.min_weight)
        return Mesh(
            vertices=found.vertex.positions.numpy(),
            colours=np.clip(found.vertex.colors.numpy(), 0, 255).astype(np.uint8),
            faces=found.triangle.indices.numpy().astype(np.int32),
        )


@dataclass
class Times:
    """Milliseconds per keyframe; Open3D's extraction is timed every few keyframes only."""

    integrate: list[float]
    update: list[float]
    speedup: list[float]


def run_both(keyframes: list[Keyframe], mesher: Mesher, config: MeshConfig) -> tuple[Times, Mesh]:
    """Fuse every keyframe with both; return our times and Open3D's mesh."""
    times = Times([], [], [])
    median = median_depth(keyframes[0], config.min_confidence)
    voxel = median / config.auto_voxels
    grid = Open3DGrid(voxel, config.max_depth_ratio * median, config)
    for i, keyframe in enumerate(keyframes):
        start = time.perf_counter()
        mesher.integrate(keyframe)
        integrated = time.perf_counter()
        mesher.extract(i)
        ended = time.perf_counter()
        their_start = time.perf_counter()
        grid.integrate(keyframe)
        if i >= WARM_UP:
            times.integrate.append(1e3 * (integrated - start))
            times.update.append(1e3 * (ended - start))
            if i % EXTRACT_EVERY == EXTRACT_EVERY - 1:
                grid.mesh()
                theirs = time.perf_counter() - their_start
                times.speedup.append(theirs / (ended - start))
    return times, grid.mesh()


def cost_growth(keyframes: list[Keyframe], config: MeshConfig) -> tuple[float, float]:
    """CPU time of an update in the last quarter of the flight, over the second and over the first.

    Run alone and in CPU time, so that other work on the machine does not count. In the first
    quarter updates are cheaper for another reason: few voxels have gathered the weight that makes
    them surface.
    """
    mesher, times_s = Mesher(config), []
    for i, keyframe in enumerate(keyframes):
        start = time.process_time()
        mesher.integrate(keyframe)
        mesher.extract(i)
        times_s.append(time.process_time() - start)
    mesher.close()
    quarter = len(times_s) // 4
    first, second = times_s[:quarter], times_s[quarter : 2 * quarter]
    last = float(np.median(times_s[-quarter:]))
    return last / float(np.median(second)), last / float(np.median(first))


def correction_residual(keyframes: list[Keyframe], config: MeshConfig) -> tuple[float, float]:
    """Fuse with drifting poses, correct them, and compare with fusing at the right poses.

    Returns the 99th percentile of the distance between the two surfaces [voxels] and the time per
    corrected keyframe [ms]. What remains comes from moves below `move_voxels`, which are not
    made, and from free space; the sums themselves are exact.
    """
    corrected, fresh = Mesher(config), Mesher(config)
    for i, keyframe in enumerate(keyframes):
        drifted = keyframe.world_from_cam.copy()
        drifted[:3, 3] += DRIFT * i / len(keyframes)
        corrected.integrate(replace(keyframe, world_from_cam=drifted))
        fresh.integrate(keyframe)
    corrected.extract(0)
    fresh.extract(0)
    start = time.perf_counter()
    moved = corrected.move({k.id: k.world_from_cam for k in keyframes}).applied
    corrected.extract(1)
    per_keyframe_ms = 1e3 * (time.perf_counter() - start) / max(len(moved), 1)
    ours, expected = corrected.mesh(), fresh.mesh()
    gaps = np.concatenate(
        [SurfaceDistance(expected)(ours.vertices), SurfaceDistance(ours)(expected.vertices)]
    )
    residual = float(np.percentile(gaps, 99.0)) / fresh.stats()["voxel"]
    corrected.close()
    fresh.close()
    return residual, per_keyframe_ms


def main() -> None:
    """Run all and write `results/mesh.json`."""
    precompile()
    rng = np.random.default_rng(7)
    scene = furnished_rooms(ROOMS, rng)
    keyframes, seen = fly(scene, rng)
    config = MeshConfig()
    growth, since_start = cost_growth(keyframes, config)
    mesher, bench = Mesher(config), Benchmark("mesh")
    times, their_mesh = run_both(keyframes, mesher, config)
    stats = mesher.stats()
    voxel = stats["voxel"]
    what = f"{CAMERA.width}×{CAMERA.height}, voxel {100 * voxel:.1f} cm, {len(keyframes)} keyframes"
    bench.add("integrate_ms", times.integrate, "ms", note=what)
    bench.add("update_ms", times.update, "ms", note=f"integrate and extract; {what}")
    bench.add(
        "update_speedup_vs_open3d",
        times.speedup,
        "x",
        note="Open3D VoxelBlockGrid 8³, integrate and full extract, same keyframes and threads",
    )
    note = f"CPU time, last quarter of the flight over the second; over the first {since_start:.2f}"
    bench.add("cost_growth", growth, "x", note=note)
    ours = evaluate_surface(mesher.mesh(), scene.mesh, seen, voxel)
    theirs = evaluate_surface(their_mesh, scene.mesh, seen, voxel)
    note = f"threshold one voxel, learned-depth noise; mean error {ours.accuracy_mean:.4f} m"
    bench.add("fscore", ours.fscore, "", note=note)
    note = f"Open3D (half-pixel fault corrected): F {theirs.fscore:.3f}"
    note += f", mean error {theirs.accuracy_mean:.4f} m"
    bench.add("fscore_vs_open3d", ours.fscore / theirs.fscore, "x", note=note)
    residual, move_ms = correction_residual(keyframes, config)
    note = f"99th percentile between surfaces; {move_ms:.1f} ms per corrected keyframe"
    bench.add("reintegrate_residual", residual, "voxel", note=note)
    note = f"{stats['blocks']} blocks, {stats['stored_keyframes']} keyframes kept"
    bench.add("memory_mb", stats["memory_bytes"] / 1e6, "MB", note=note)
    bench.write()


if __name__ == "__main__":
    main()
