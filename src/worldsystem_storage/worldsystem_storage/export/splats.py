# SPDX-License-Identifier: Apache-2.0
"""All keyframes as one world of Gaussian splats, and its files: 3DGS PLY and SPZ."""

from __future__ import annotations

from pathlib import Path

from worldsystem_core.frames import Camera
from worldsystem_core.reconstruction import Keyframe
from worldsystem_core.splats.files import write_ply, write_spz
from worldsystem_core.splats.gaussians import Gaussians
from worldsystem_core.splats.world import SplatWorld
from worldsystem_storage.errors import StorageError
from worldsystem_storage.export.place import check_ending, output_file
from worldsystem_storage.export.recorded import RecordedKeyframe, RecordedRun

MOST_SPLATS = 2_000_000


def splats_of(run: RecordedRun) -> Gaussians:
    """Discs of all keyframes at their last poses, duplicates left out, in the world frame."""
    world = SplatWorld(most_splats=MOST_SPLATS)
    for keyframe in run.keyframes:
        world.add(_keyframe(keyframe))
    found = world.gaussians()
    if not len(found):
        raise StorageError("the run has no confident points to export")
    return found


def export_gaussians(run: RecordedRun, out: Path) -> Path:
    """3DGS PLY: scales are logarithms and opacities logits, as that format has them."""
    check_ending(out, "ply")
    return write_ply(splats_of(run), output_file(out, "gaussians.ply"))


def export_spz(run: RecordedRun, out: Path) -> Path:
    """SPZ version 3, a sixth of the PLY's size."""
    check_ending(out, "spz")
    return write_spz(splats_of(run), output_file(out, "gaussians.spz"))


def _keyframe(recorded: RecordedKeyframe) -> Keyframe:
    return Keyframe(
        id=recorded.id,
        frame_id=recorded.id,
        stamp_ns=recorded.stamp_ns,
        world_from_cam=recorded.world_from_cam,
        camera=Camera.from_K(recorded.K, recorded.width, recorded.height),
        pointmap=recorded.pointmap,
        confidence=recorded.confidence,
        rgb=recorded.rgb,
    )
