# SPDX-License-Identifier: Apache-2.0
"""One pass of segmentation over keyframes with true ids, and the scores of what came of it."""

from __future__ import annotations

import time

import numpy as np
import tracking_scores as scores
from segment_naive import IouTracker

from worldsystem_core.geometry.se3 import transform
from worldsystem_core.reconstruction import Keyframe
from worldsystem_segment.config import SegmentConfig
from worldsystem_segment.geometric.backend import GeometricBackend
from worldsystem_segment.objects.voxels import voxel_keys

STEP_PX = 3  # of the pixels whose points are compared in 3D
Shot = tuple[Keyframe, np.ndarray]


class Run:
    """Our back-end over `shots`, and the plain mask tracker over the very same instances."""

    def __init__(self, shots: list[Shot], *, voxel: float, visible_px: int) -> None:
        GeometricBackend(SegmentConfig()).feed(shots[0][0], ())
        backend, naive = GeometricBackend(SegmentConfig()), IouTracker()
        self.wall_ms: list[float] = []
        self.processor_ms: list[float] = []
        labels, plain = [], []
        for keyframe, _ in shots:
            wall, processor = time.perf_counter(), time.process_time()
            labels.append(backend.feed(keyframe, ()).labels)
            self.wall_ms.append(1e3 * (time.perf_counter() - wall))
            self.processor_ms.append(1e3 * (time.process_time() - processor))
            plain.append(enlarged(naive.update(backend.instances), labels[-1].shape))
        truths = [truth for _, truth in shots]
        self.sequence = scores.sequence_of(truths, labels, visible_px)
        self.naive = scores.sequence_of(truths, plain, visible_px)
        certain = {o.id: o.score for o in backend.objects(0, ()).objects}
        self.ap25 = ap_3d(shots, labels, certain, voxel)


def enlarged(small: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A thinned label picture at the keyframe's size."""
    stride = -(-shape[1] // small.shape[1])
    return small.repeat(stride, axis=0).repeat(stride, axis=1)[: shape[0], : shape[1]]


def ap_3d(
    shots: list[Shot], labels: list[np.ndarray], certain: dict[int, float], voxel: float
) -> float:
    """AP at IoU 0.25 over voxels of all seen points; a voxel is what most of its points are."""
    points, truth, given = [], [], []
    some = (slice(None, None, STEP_PX), slice(None, None, STEP_PX))
    for (keyframe, true_ids), label in zip(shots, labels, strict=True):
        pointmap, thinned = keyframe.pointmap[some], label[some]
        known = np.isfinite(pointmap[..., 2])
        points.append(transform(keyframe.world_from_cam, pointmap[known]))
        truth.append(true_ids[some][known])
        given.append(np.where(np.isin(thinned, list(certain)), thinned, 0)[known])
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
    keys, counts = np.unique(cell.ravel().astype(np.int64) * span + ids, return_counts=True)
    order = np.argsort(counts, kind="stable")  # the last write, the largest count, stays
    result = np.zeros(int(cell.max()) + 1, np.int64)
    result[keys[order] // span] = keys[order] % span
    return result


def _iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / max((a | b).sum(), 1))
