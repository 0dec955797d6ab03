# SPDX-License-Identifier: Apache-2.0
"""Walls before and after a loop closes: a level cut through the keyframes' points, beside truth."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import numpy as np
import trimesh

from worldsystem_core.geometry.se3 import transform
from worldsystem_core.geometry.sim3 import fit_sim3
from worldsystem_core.reconstruction import Event, Keyframe, MovedKeyframes, NewKeyframe
from worldsystem_core.trajectory import Trajectory
from worldsystem_sim.scene import build_scene

mpl.use("Agg")
import matplotlib.pyplot as plt

PICTURE = Path(__file__).parents[1] / "docs" / "pictures" / "loop_closure.png"
CUT_M = (1.2, 1.8)
STRIDE_PX = 2
FARTHEST = 2.2
"""Points beyond so many median depths of their keyframe are too coarse to show a wall."""
LATE_KEYFRAMES = 10
SHOWN_EAST_M, SHOWN_NORTH_M = (-13.0, 13.0), (-10.0, 17.0)


def draw_loop(truth: dict[int, np.ndarray], before: list[Event], after: list[Event]) -> None:
    """The cut around the walls that the first and the last keyframes both see."""
    figure, axes = plt.subplots(1, 2, figsize=(11, 6.2), sharex=True, sharey=True)
    walls = build_scene(1).mesh()
    solid = trimesh.Trimesh(walls.vertices, walls.faces, process=False)
    lines = trimesh.intersections.mesh_plane(solid, [0, 0, 1], [0, 0, float(np.mean(CUT_M))])
    names = ("before: the back-end alone", "after: loops closed")
    for axis, events, name in zip(axes, (before, after), names, strict=True):
        early, late = _cuts(truth, events)
        for line in lines:
            axis.plot(line[:, 0], line[:, 1], color="0.75", lw=2.5, zorder=0)
        axis.scatter(*early.T, s=1.2, color="tab:blue", label="seen at the start", lw=0)
        axis.scatter(*late.T, s=1.2, color="tab:orange", label="seen again at the end", lw=0)
        axis.set(title=name, xlabel="east [m]", aspect="equal")
    axes[0].set(
        ylabel="north [m]",
        xlim=SHOWN_EAST_M,
        ylim=SHOWN_NORTH_M,
    )
    axes[1].legend(loc="upper right", markerscale=6)
    figure.suptitle(f"Walls cut at {CUT_M[0]:g}–{CUT_M[1]:g} m over the ground; grey: truth")
    figure.tight_layout()
    figure.savefig(PICTURE, dpi=100)
    plt.close(figure)


def _cuts(truth: dict[int, np.ndarray], events: list[Event]) -> tuple[np.ndarray, np.ndarray]:
    """East and north of the points in the cut, of the first and of the last keyframes."""
    trajectory, keyframes = Trajectory(), []
    places: dict[int, np.ndarray] = {}
    sizes: dict[int, float] = {}
    for event in events:
        trajectory.add(event)
        if isinstance(event, NewKeyframe):
            keyframes.append(event.keyframe)
            places[event.keyframe.id] = event.keyframe.world_from_cam
        elif isinstance(event, MovedKeyframes):
            places |= event.world_from_cam
            sizes |= event.point_scale
    path = trajectory.poses()
    # aligned at the start alone, so that what drifted since shows
    start = len(path) // 4
    wanted = np.array([truth[stamp][:3, 3] for stamp in path.stamps_ns[:start].tolist()])
    fit = fit_sim3(wanted, path.positions[:start])

    def cut(chosen: list[Keyframe]) -> np.ndarray:
        clouds = [
            fit.apply(transform(places[k.id], _points(k) * sizes.get(k.id, 1.0))) for k in chosen
        ]
        points = np.concatenate(clouds)
        inside = (points[:, 2] > CUT_M[0]) & (points[:, 2] < CUT_M[1])
        return np.asarray(points[inside, :2])

    return cut(keyframes[:LATE_KEYFRAMES]), cut(keyframes[-LATE_KEYFRAMES:])


def _points(keyframe: Keyframe) -> np.ndarray:
    thin = keyframe.pointmap[::STRIDE_PX, ::STRIDE_PX].reshape(-1, 3).astype(np.float64)
    known = np.isfinite(thin[:, 2])
    near = thin[known]
    return np.asarray(near[near[:, 2] < FARTHEST * np.median(near[:, 2])])
