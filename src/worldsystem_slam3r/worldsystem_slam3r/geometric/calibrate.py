# SPDX-License-Identifier: Apache-2.0
"""The focal length of an unknown camera, estimated again when several keyframes show it."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np

from worldsystem_core.frames import Camera
from worldsystem_slam3r.geometric.bundle import adjust
from worldsystem_slam3r.geometric.map_store import Map

log = logging.getLogger(__name__)

KEYFRAMES = 8
"""Keyframes that decide: two starting views of a rendered room were 5 % off, eight were 1 %."""
FOCAL_SIGMA = 0.01
FOCAL_WIDTHS = (0.35, 3.0)
ITERATIONS = 40
MIN_POINTS = 20


def calibrate(world: Map) -> bool:
    """Free the focal length of all keyframes of a young map; True when it was well known.

    The first keyframe stays and so does the distance to the newest one, so that poses told so far
    remain valid. Flight straight ahead does not show the focal length: then nothing changes.
    """
    records = world.latest(len(world.keyframes))
    bundle, rows = world.bundle(records, 1)
    if len(rows) < MIN_POINTS:
        return False
    result = adjust(bundle, with_focal=True, iterations=ITERATIONS)
    widths = result.K4[0] / records[0].grey.shape[1]
    known = result.focal_sigma < FOCAL_SIGMA and FOCAL_WIDTHS[0] < widths < FOCAL_WIDTHS[1]
    message = "focal length: %.0f px so far, %.0f px from %d keyframes (±%.1f %%)%s"
    told = "" if known else ", not adopted"
    sigma_percent = 100.0 * result.focal_sigma
    log.info(message, world.K4[0], result.K4[0], len(records), sigma_percent, told)
    if not known:
        return False
    centres = -np.einsum("cji,cj->ci", result.rotations, result.translations)
    before = -np.einsum("cji,cj->ci", bundle.rotations, bundle.translations)
    scale = np.linalg.norm(before[-1] - before[0]) / np.linalg.norm(centres[-1] - centres[0])
    moved = before[0] + scale * (centres - before[0])
    world.K4 = result.K4
    for record, rotation, centre in zip(records, result.rotations, moved, strict=True):
        record.cam_from_world[:3, :3] = rotation
        record.cam_from_world[:3, 3] = -rotation @ centre
        if record.view is not None:
            record.view = replace(record.view, camera=_with_focal(record.view.camera, world.K4))
    world.points.position[rows] = before[0] + scale * (result.points - before[0])
    return True


def _with_focal(camera: Camera, K4: np.ndarray) -> Camera:
    return replace(camera, fx=float(K4[0]), fy=float(K4[1]))
