# SPDX-License-Identifier: Apache-2.0
"""The depth buffer against ray casting (Open3D, on Embree) and against geometry."""

from __future__ import annotations

import subprocess
import sys
import threading

import numpy as np
import open3d as o3d
import pytest

from worldsystem_core.geometry.se3 import look_at
from worldsystem_sim import raster, shading
from worldsystem_sim.raster import Soup, rasterise
from worldsystem_sim.render import Renderer

UP = np.array([0.0, 0.0, 1.0])
POSES = (
    look_at(np.array([20.0, -4.0, 11.0]), np.array([2.0, 0.0, 1.0]), UP),
    look_at(np.array([0.3, -17.0, 1.7]), np.array([0.0, 0.0, 1.6]), UP),  # inside the barn
    look_at(np.array([0.0, 0.0, 0.6]), np.array([9.0, 1.0, 0.2]), UP),  # low over the road
)
CENTRE = np.zeros((1, 2))


@pytest.mark.parametrize("pose", POSES)
def test_depth_and_ids_are_those_of_a_ray_caster(pose, renderer, scene, config):
    camera = config.camera
    corners = scene.triangles.corners_m.reshape(-1, 3)
    caster = o3d.t.geometry.RaycastingScene()
    faces = np.arange(len(corners), dtype=np.uint32).reshape(-1, 3)
    caster.add_triangles(o3d.core.Tensor(corners), o3d.core.Tensor(faces))
    v, u = np.indices((camera.height, camera.width)).reshape(2, -1)
    picture = np.stack([u, v, np.ones_like(u)]).astype(float)
    directions = (pose[:3, :3] @ np.linalg.inv(camera.K) @ picture).T
    rays = np.concatenate([np.broadcast_to(pose[:3, 3], directions.shape), directions], axis=1)
    hits = caster.cast_rays(o3d.core.Tensor(rays.astype(np.float32)))
    expected_m = hits["t_hit"].numpy().reshape(camera.height, camera.width)
    depth_m, ids = renderer.render_truth(pose)
    sky = np.isinf(expected_m)
    hit = np.where(sky.ravel(), 0, hits["primitive_ids"].numpy())
    expected_ids = np.where(sky.ravel(), 0, scene.triangles.instance[hit]).reshape(ids.shape)
    # Rays that graze an edge may fall to either side of it; float32 rays are part of that.
    assert np.mean(np.isinf(depth_m) != sky) < 1e-3
    both = ~sky & np.isfinite(depth_m)
    assert np.mean(np.abs(depth_m[both] / expected_m[both] - 1.0) > 1e-4) < 1e-3
    assert np.mean(ids != expected_ids) < 1e-3


def _pinhole(size: int) -> np.ndarray:
    """A camera at the origin that looks along z, focal length and centre at half its size."""
    half = size / 2
    return np.array([[half, 0, half, 0], [0, half, half, 0], [0, 0, 1, 0], [0, 0, 1, 0]], float)


def _soup(*triangles: list[tuple[float, float, float]]) -> Soup:
    corners = np.array(triangles, dtype=np.float32).reshape(-1, 3, 3)
    return Soup(corners, np.array([[0.0, 0.0, 0.0, 1e6]]))


def test_a_triangle_that_passes_through_the_camera_plane_is_seen_in_front_of_it_only():
    floor = [(-50.0, 1.0, -40.0), (50.0, 1.0, -40.0), (0.0, 1.0, 400.0)]
    samples = rasterise(_soup(floor), _pinhole(64), CENTRE, 64, 64)
    row, column = 60, 32
    assert samples.depth[row, column, 0] == pytest.approx(32 / (row - 32), rel=1e-6)
    assert (samples.triangle[:32] == -1).all()


def test_the_nearer_of_two_triangles_is_seen_in_either_order():
    far = [(-9.0, -9.0, 4.0), (9.0, -9.0, 4.0), (0.0, 9.0, 4.0)]
    near = [(-9.0, -9.0, 3.0), (9.0, -9.0, 3.0), (0.0, 9.0, 3.0)]
    for soup, winner in ((_soup(far, near), 1), (_soup(near, far), 0)):
        samples = rasterise(soup, _pinhole(32), CENTRE, 32, 32)
        assert samples.triangle[16, 16, 0] == winner
        assert samples.depth[16, 16, 0] == pytest.approx(3.0)


def test_nothing_is_seen_of_triangles_behind_the_camera_edge_on_or_without_area():
    behind = [(-9.0, -9.0, -4.0), (9.0, -9.0, -4.0), (0.0, 9.0, -4.0)]
    edge_on = [(0.0, -1.0, 2.0), (0.0, 1.0, 2.0), (0.0, 0.0, 5.0)]
    point = [(0.1, 0.1, 2.0)] * 3
    lost = [(float("nan"), 0.0, 2.0), (1.0, 0.0, 2.0), (0.0, 1.0, 2.0)]
    for triangles in ([behind], [edge_on], [point], [lost], []):
        samples = rasterise(_soup(*triangles), _pinhole(32), CENTRE, 32, 32)
        assert (samples.triangle == -1).all()
        assert np.isinf(samples.depth).all()


def test_threads_that_share_a_renderer_make_the_same_bytes(renderer: Renderer):
    alone = [renderer.render(pose).rgb for pose in POSES]
    together: dict[int, np.ndarray] = {}

    def work(i: int) -> None:
        together[i] = renderer.render(POSES[i]).rgb

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(POSES))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30.0)
    assert all(np.array_equal(together[i], alone[i]) for i in range(len(POSES)))


def test_precompiling_leaves_nothing_to_compile_for_a_flight(renderer):
    """In a process of its own: in this one earlier tests have compiled what a flight needs."""
    code = (
        "from worldsystem_sim import raster, shading\n"
        "from worldsystem_sim.precompile import precompile\n"
        "precompile()\n"
        "print(sorted(map(str, {*raster._fill.signatures, *shading.shade.signatures})))\n"
    )
    command = [sys.executable, "-c", code]
    run = subprocess.run(command, capture_output=True, text=True, check=True, timeout=200.0)
    renderer.render(POSES[0])
    assert run.stdout.strip() == str(sorted(map(str, _signatures())))
    assert len(_signatures()) == 2


def _signatures() -> set[object]:
    """The argument types for which the two outer loops have machine code in this process."""
    return {*raster._fill.signatures, *shading.shade.signatures}
