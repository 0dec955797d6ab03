# SPDX-License-Identifier: Apache-2.0
"""Segmentation: tracking scores, 3D instances, time and re-entry on scenes with true ids.

Two ray-cast scenes, a room swept out and back and a hamlet circled, each with 1 % of depth noise
that is mostly smooth, as reconstruction errs. The thresholds were set while looking at these
scenes, so the scores are optimistic for others.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

for threads in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(threads, "1")
sys.path.insert(0, str(Path(__file__).parents[1] / "test" / "segment"))

import cv2  # noqa: E402
import numpy as np  # noqa: E402
import tracking_scores as scores  # noqa: E402
from harness import QUICK, Benchmark  # noqa: E402
from segment_scenes import ROOM_EYE, Caster, hamlet, hamlet_view, room  # noqa: E402

from worldsystem_core.geometry.se3 import transform  # noqa: E402
from worldsystem_core.reconstruction import Keyframe  # noqa: E402
from worldsystem_segment.geometric.voxels import voxel_keys  # noqa: E402
from worldsystem_segment.segmenter import Segmenter  # noqa: E402

NOISE = 0.01
VISIBLE_PX = 80
STEP_PX = 3
VOXEL_M = {"room": 0.05, "hamlet": 0.2}
Shot = tuple[Keyframe, np.ndarray]


def main() -> None:
    """Score both scenes and write the figures."""
    cv2.setNumThreads(1)
    sequences = {"room": room_shots(), "hamlet": hamlet_shots()}
    runs = [Run(shots, VOXEL_M[name]) for name, shots in sequences.items()]
    bench = Benchmark("segment")
    note = f"room, hamlet; {NOISE:.0%} noise; scenes also used to set thresholds"
    bench.add("hota", [scores.hota(r.sequence) for r in runs], "-", note=note)
    bench.add("idf1", [scores.idf1(r.sequence) for r in runs], "-", note=note)
    bench.add("id_switches", [scores.id_switches(r.sequence) for r in runs], "switches", note=note)
    bench.add("ap25_3d", [r.ap25 for r in runs], "-", note=note)
    bench.add(
        "frame_ms",
        [t for r in runs for t in r.frame_ms],
        "ms",
        note="320x180, processor time of one thread",
    )
    returns = scores.reentry_percent(runs[0].sequence, away=2, hits=3)
    bench.add("reentry_percent", returns, "%", note="room, at least three keyframes out of view")
    bench.write()


def room_shots() -> list[Shot]:
    """Look right, left and right again from one corner of the room."""
    caster = room().caster()
    legs = ((0, -75), (-75, 75), (75, 0))
    step = 6.0 if QUICK else 3.0
    turns = np.concatenate([np.arange(a, b, np.sign(b - a) * step) for a, b in legs])
    return [_room_shot(caster, k, np.deg2rad(turn)) for k, turn in enumerate(turns)]


def _room_shot(caster: Caster, index: int, turn_rad: float) -> Shot:
    target = (4 * np.sin(turn_rad), ROOM_EYE[1] + 4 * np.cos(turn_rad), 0.3)
    shot: Shot = caster.shot(index, ROOM_EYE, target, noise=NOISE)
    return shot


def hamlet_shots() -> list[Shot]:
    """Once around the hamlet at 10 m."""
    caster = hamlet().caster()
    angles = np.deg2rad(np.arange(0, 360, 10.0 if QUICK else 5.0))
    return [caster.shot(k, *hamlet_view(a), noise=NOISE) for k, a in enumerate(angles)]


class Run:
    """One pass over a sequence and what came of it."""

    def __init__(self, shots: list[Shot], voxel: float) -> None:
        Segmenter().feed(shots[0][0])
        segmenter = Segmenter()
        self.frame_ms, labels = [], []
        for keyframe, _ in shots:
            start = time.process_time()
            labels.append(segmenter.feed(keyframe).labels)
            self.frame_ms.append(1e3 * (time.process_time() - start))
        truths = [truth for _, truth in shots]
        self.sequence = scores.sequence_of(truths, labels, VISIBLE_PX)
        certain = {o.id: o.score for o in segmenter.objects(0).objects}
        self.ap25 = ap_3d(shots, labels, certain, voxel)


def ap_3d(
    shots: list[Shot], labels: list[np.ndarray], certain: dict[int, float], voxel: float
) -> float:
    """AP at IoU 0.25 over voxels of all seen points; a voxel is what most of its points are."""
    points, truth, given = [], [], []
    for (keyframe, true_ids), label in zip(shots, labels, strict=True):
        some = (slice(None, None, STEP_PX), slice(None, None, STEP_PX))
        pointmap, true_ids, label = keyframe.pointmap[some], true_ids[some], label[some]
        known = np.isfinite(pointmap[..., 2])
        points.append(transform(keyframe.world_from_cam, pointmap[known]))
        truth.append(true_ids[known])
        given.append(np.where(np.isin(label, list(certain)), label, 0)[known])
    _, cell = np.unique(voxel_keys(np.concatenate(points), voxel), return_inverse=True)
    true_of = _majority(cell, np.concatenate(truth))
    given_of = _majority(cell, np.concatenate(given))
    names = sorted(certain)
    true_sets = [true_of == t for t in range(1, int(true_of.max()) + 1)]
    iou = np.array(
        [[_iou(t, given_of == g) for g in names] for t in true_sets if t.any()], dtype=float
    ).reshape(-1, len(names))
    return scores.average_precision(iou, np.array([certain[g] for g in names]), 0.25)


def _majority(cell: np.ndarray, ids: np.ndarray) -> np.ndarray:
    span = int(ids.max()) + 1
    keys, counts = np.unique(cell.ravel() * span + ids, return_counts=True)
    order = np.argsort(counts, kind="stable")  # the last write, the largest count, stays
    result = np.zeros(int(cell.max()) + 1, np.int64)
    result[keys[order] // span] = keys[order] % span
    return result


def _iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / max((a | b).sum(), 1))


if __name__ == "__main__":
    main()
