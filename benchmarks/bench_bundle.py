# SPDX-License-Identifier: Apache-2.0
"""Our bundle adjuster against Ceres on the windows that a simulated flight really poses.

Both start from the same poses and points, hold the same cameras, use the same Huber cost, stop at
the same relative gain and take at most as many iterations. COLMAP states the
problem (its compiled reprojection cost), `pyceres` solves it: that time is the solver's alone;
stating the problem from Python comes on top and is a figure of its own.
"""

from __future__ import annotations

import statistics
import time
from functools import partial
from unittest import mock

import numpy as np
from harness import QUICK, Benchmark, timed_ms

from worldsystem_core.errors import MissingDependency
from worldsystem_sim.config import SimConfig
from worldsystem_sim.offline import frames as simulated_frames
from worldsystem_slam3r.backend import create_backend
from worldsystem_slam3r.config import Slam3rConfig
from worldsystem_slam3r.geometric import system
from worldsystem_slam3r.geometric.bundle import HUBER_PX, MAX_ITERATIONS, Adjusted, Bundle, adjust

try:
    import pyceres
    import pycolmap
except ImportError as error:
    raise MissingDependency(
        "pyceres", "the comparison with Ceres", "pip install pyceres pycolmap"
    ) from error

WINDOWS = 4 if QUICK else 16
FLIGHT = SimConfig(duration_s=20.0)
RELATIVE_GAIN = 1e-4
REPEATS = 5
KEPT: list[object] = []
"""What Ceres points into, kept alive."""
PATIENCE = 50
"""Iterations after which a solver has converged: the cost that both are compared to."""


def recorded_windows() -> list[Bundle]:
    """The first full windows (9 keyframes that move, 3 that are held) of the flight."""
    config = Slam3rConfig(synchronous=True, depth_planes=16, depth_neighbours=1)
    full = config.window_keyframes + system.FIXED_KEYFRAMES
    windows: list[Bundle] = []

    def recording(bundle: Bundle) -> Adjusted:
        if len(bundle.fixed) == full:
            windows.append(bundle)
        return adjust(bundle)

    backend = create_backend("geometric", config)
    with mock.patch.object(system, "adjust", recording):
        for frame, _ in simulated_frames(FLIGHT):
            backend.feed(frame)
            if len(windows) == WINDOWS:
                break
    backend.finish()
    return windows


def stated(bundle: Bundle) -> pyceres.Problem:
    """The window as a Ceres problem, cameras `fixed` held; COLMAP states it with its own types."""
    scene = pycolmap.Reconstruction()
    fx, fy, cx, cy = bundle.K4
    camera = pycolmap.Camera(
        model="PINHOLE", width=int(2 * cx + 1), height=int(2 * cy + 1), params=[fx, fy, cx, cy]
    )
    camera.camera_id = 1
    scene.add_camera_with_trivial_rig(camera)
    config = pycolmap.BundleAdjustmentConfig()
    place = np.zeros(len(bundle.uv), int)
    for i, held in enumerate(bundle.fixed.tolist()):
        mine = np.flatnonzero(bundle.cam_index == i)
        place[mine] = np.arange(len(mine))
        image = pycolmap.Image(name=str(i), keypoints=bundle.uv[mine], camera_id=1, image_id=i + 1)
        pose = pycolmap.Rigid3d(
            pycolmap.Rotation3d(bundle.rotations[i]), bundle.translations[i][:, None]
        )
        scene.add_image_with_trivial_frame(image, pose)
        config.add_image(i + 1)
        if held:
            config.set_constant_rig_from_world_pose(i + 1)
    first = np.searchsorted(bundle.point_index, np.arange(len(bundle.points) + 1))
    for k, point in enumerate(bundle.points):
        track = pycolmap.Track()
        for n in range(first[k], first[k + 1]):
            track.add_element(int(bundle.cam_index[n]) + 1, int(place[n]))
        scene.add_point3D(point[:, None], track)
    config.set_constant_cam_intrinsics(1)
    options = pycolmap.BundleAdjustmentOptions()
    options.ceres.loss_function_type = pycolmap.LossFunctionType.HUBER
    options.ceres.loss_function_scale = HUBER_PX
    adjuster = pycolmap.create_default_ceres_bundle_adjuster(options, config, scene)
    KEPT.append((scene, adjuster))
    return adjuster.problem


def solved(problem: pyceres.Problem, iterations: int, gain: float) -> tuple[float, float]:
    """Let Ceres solve: milliseconds, and the cost it ends with in our units (no factor ½)."""
    options = pyceres.SolverOptions()
    options.linear_solver_type = pyceres.LinearSolverType.DENSE_SCHUR
    options.max_num_iterations = iterations
    options.function_tolerance = gain
    options.num_threads = 1
    summary = pyceres.SolverSummary()
    start = time.perf_counter()
    pyceres.solve(options, problem, summary)
    return 1e3 * (time.perf_counter() - start), 2.0 * summary.final_cost


def main() -> None:
    """Solve every window with both and compare."""
    ours_ms, theirs_ms, stating_ms, ratios, optimum = [], [], [], [], []
    for window in recorded_windows():
        ours_ms.append(statistics.median(timed_ms(partial(adjust, window), REPEATS)))
        start = time.perf_counter()
        stated(window)
        stating_ms.append(1e3 * (time.perf_counter() - start))
        tries = [solved(stated(window), MAX_ITERATIONS, RELATIVE_GAIN) for _ in range(REPEATS)]
        theirs_ms.append(statistics.median(took_ms for took_ms, _ in tries))
        mine, theirs = adjust(window).cost_after, tries[0][1]
        ratios.append(mine / theirs)
        optimum.append(mine / solved(stated(window), PATIENCE, 1e-9)[1])
    bench = Benchmark("bundle")
    size = f"{len(window.points)} points, {len(window.uv)} observations in the last window"
    bench.add("ours_ms", ours_ms, "ms", note=f"9 cameras move, 3 are held; {size}")
    bench.add("pyceres_ms", theirs_ms, "ms", note="solver alone, DENSE_SCHUR, one thread")
    bench.add("pyceres_stating_ms", stating_ms, "ms", note="the same problem told from Python")
    speedups = [theirs / ours for theirs, ours in zip(theirs_ms, ours_ms, strict=True)]
    bench.add("speedup_vs_pyceres", speedups, "x", note="without stating the problem")
    bench.add(
        "cost_ratio", ratios, "", note="our final cost over that of Ceres, same stopping rule"
    )
    bench.add("cost_over_optimum", optimum, "", note="over Ceres run until nothing changes")
    bench.write()


if __name__ == "__main__":
    main()
