# SPDX-License-Identifier: Apache-2.0
"""Whether the streaming back-end can follow a walk with the weights: the use they are made for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from windows import Clip

from worldsystem_core.frames import Camera, Frame
from worldsystem_core.geometry.se3 import rotation_angle_rad
from worldsystem_core.geometry.sim3 import fit_sim3
from worldsystem_core.reconstruction import Pose, TrackingState
from worldsystem_slam3r.config import Slam3rConfig
from worldsystem_slam3r.slam3r.create import create
from worldsystem_slam3r.weight_files import find_weights

_PERIOD_NS = 33_000_000
_FEWEST = 5


def followed(weights: Path, clips: list[Clip]) -> dict[str, float]:
    """Over all walks: the share of frames that were tracked, and how far off those poses are.

    Position errors are relative to the spread of the true positions, after the best similarity: a
    guess that never moves has 1. Walks with fewer than 5 tracked frames count as wholly lost.
    """
    shares, positions, angles = [], [], []
    for clip in clips:
        tracked = _tracked(weights, clip)
        shares.append(len(tracked) / len(clip))
        if len(tracked) < _FEWEST:
            positions.append(1.0)
            continue
        truth = clip.world_from_cam[[pose.frame_id for pose in tracked]]
        found = np.stack([pose.world_from_cam for pose in tracked])
        fit = fit_sim3(truth[:, :3, 3], found[:, :3, 3])
        off = np.linalg.norm(fit.apply(found[:, :3, 3]) - truth[:, :3, 3], axis=1)
        spread = np.linalg.norm(truth[:, :3, 3] - truth[:, :3, 3].mean(axis=0), axis=1)
        positions.append(float(np.sqrt((off**2).mean() / max((spread**2).mean(), 1e-12))))
        turns = [truth[0, :3, :3].T @ t[:3, :3] for t in truth]
        seen = [found[0, :3, :3].T @ f[:3, :3] for f in found]
        angles += [rotation_angle_rad(t.T @ s) for t, s in zip(turns, seen, strict=True)]
    return {
        "tracked_share": round(float(np.mean(shares)), 4),
        "position_error": round(float(np.mean(positions)), 4),
        "turn_error_deg": round(float(np.rad2deg(np.median(angles))), 2) if angles else -1.0,
    }


def _tracked(weights: Path, clip: Clip) -> list[Pose]:
    config = Slam3rConfig(backend="slam3r", weights=str(weights), device="cpu", threads=1)
    backend = create(find_weights("slam3r", str(weights)), config)
    height, width = clip.rgb.shape[1:3]
    camera = Camera.from_K(clip.K, width, height)
    events = []
    for i, rgb in enumerate(clip.rgb):
        events += backend.feed(Frame(id=i, stamp_ns=i * _PERIOD_NS, rgb=rgb.copy(), camera=camera))
    events += backend.finish()
    poses = [event for event in events if isinstance(event, Pose)]
    return [pose for pose in poses if pose.state is TrackingState.TRACKED]
