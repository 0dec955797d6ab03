# SPDX-License-Identifier: Apache-2.0
"""Surfaces as clouds: what an estimate is compared with where the truth has depth but no mesh.

The distances are those to the nearest point, as 7-Scenes and Replica figures are made: a truth of
points `spacing` apart has a floor of about half of that.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float
from scipy.spatial import cKDTree

from worldsystem_core.errors import SourceError
from worldsystem_core.surface import Mesh

THREADS = 2
COARSEST = 1e-4
"""Share of a surface's size to which 32-bit numbers have to keep it: a hundredth of the F-score's
own threshold."""
_GLB, _OURS = b"glTF", b'"generator":"WorldSystem"'
_HEAD_BYTES = 200


@dataclass(frozen=True, kw_only=True)
class CloudError:
    """The verdict on a cloud; lengths in truth units, shares in [0, 1], one per threshold.

    Accuracy: estimate → truth. Completeness: truth → estimate. `chamfer_l1` is the mean of the two
    means. Of the estimate only what lies in the truth's own box, a threshold wider, is judged,
    since depth pictures do not say what lies beyond them; `judged_share` tells how much that is.
    """

    accuracy_mean: float
    accuracy_median: float
    completeness_mean: float
    completeness_median: float
    chamfer_l1: float
    thresholds: tuple[float, ...]
    precision: tuple[float, ...]
    recall: tuple[float, ...]
    fscore: tuple[float, ...]
    judged_share: float
    n_estimated: int
    n_truth: int


def evaluate_cloud(
    estimated: Float[np.ndarray, "n 3"],
    truth: Float[np.ndarray, "m 3"],
    thresholds: tuple[float, ...],
) -> CloudError:
    """Compare a cloud, already in the truth's frame, with the true one.

    Points that are not finite are left out. Raises ValueError when a threshold is not positive or
    the truth is empty.
    """
    if not thresholds or min(thresholds) <= 0:
        raise ValueError(f"thresholds must be positive, not {thresholds}")
    truth = truth[np.isfinite(truth).all(axis=1)]
    if not len(truth):
        raise ValueError("the truth holds no point")
    estimated = estimated[np.isfinite(estimated).all(axis=1)]
    margin = max(thresholds)
    inside = (estimated >= truth.min(axis=0) - margin) & (estimated <= truth.max(axis=0) + margin)
    judged = estimated[inside.all(axis=1)]
    share = len(judged) / len(estimated) if len(estimated) else 0.0
    accuracy = np.zeros(0)
    completeness = np.full(len(truth), np.inf)
    if len(judged):
        accuracy = cKDTree(truth).query(judged, workers=THREADS)[0]
        completeness = cKDTree(judged).query(truth, workers=THREADS)[0]
    return _verdict(accuracy, completeness, thresholds, share)


def _verdict(
    accuracy: np.ndarray, completeness: np.ndarray, thresholds: tuple[float, ...], share: float
) -> CloudError:
    def within(distances: np.ndarray, threshold: float) -> float:
        return float((distances <= threshold).mean()) if len(distances) else 0.0

    nan = float("nan")
    found = bool(len(accuracy))
    precision = tuple(within(accuracy, t) for t in thresholds)
    recall = tuple(within(completeness, t) for t in thresholds)
    pairs = zip(precision, recall, strict=True)
    accuracy_mean = float(accuracy.mean()) if found else nan
    completeness_mean = float(completeness.mean()) if found else nan
    return CloudError(
        accuracy_mean=accuracy_mean,
        accuracy_median=float(np.median(accuracy)) if found else nan,
        completeness_mean=completeness_mean,
        completeness_median=float(np.median(completeness)) if found else nan,
        chamfer_l1=0.5 * (accuracy_mean + completeness_mean),
        thresholds=thresholds,
        precision=precision,
        recall=recall,
        fscore=tuple(2 * p * r / (p + r) if p + r else 0.0 for p, r in pairs),
        judged_share=share,
        n_estimated=len(accuracy),
        n_truth=len(completeness),
    )


def read_surface(path: Path) -> Mesh:
    """A mesh or a cloud (a mesh without faces) from a PLY, OBJ, GLB or OFF file.

    Raises SourceError when the file is missing or nothing of the kind, and for a GLB of ours.
    """
    import trimesh  # a third of a second, which a run without a true surface need not wait

    try:
        if _is_glb_of_ours(path):
            raise SourceError(
                f"{path} was turned to y up, as glTF is, and lies in the frame of no path; "
                "give the run's mesh.ply, or export it as ply or obj"
            )
        loaded = trimesh.load(path, process=False)
        if isinstance(loaded, trimesh.Scene):  # of one mesh or several, as with several materials
            loaded = loaded.to_mesh()
    except (OSError, ValueError, LookupError, TypeError, NotImplementedError) as error:
        raise SourceError(f"cannot read a surface from {path}: {error}") from error
    vertices = np.asarray(getattr(loaded, "vertices", np.zeros((0, 3))), np.float64)
    if not len(vertices):
        raise SourceError(f"{path} holds no point")
    _check_digits(path, vertices)
    faces = np.asarray(getattr(loaded, "faces", np.zeros((0, 3))), np.int32).reshape(-1, 3)
    grey = np.full((len(vertices), 3), 160, np.uint8)
    return Mesh(vertices=vertices.astype(np.float32), colours=grey, faces=faces)


def _check_digits(path: Path, vertices: Float[np.ndarray, "n 3"]) -> None:
    """Raise `SourceError` for a surface so far from its origin that rounding would be judged."""
    known = vertices[np.isfinite(vertices).all(axis=1)]
    if not len(known):
        return
    step = float(np.spacing(np.float32(np.abs(known).max())))
    if step > COARSEST * float(np.linalg.norm(np.ptp(known, axis=0))) > 0.0:
        raise SourceError(
            f"{path} lies so far from its origin that surfaces, which are compared in 32 bits, "
            f"would be rounded to {step:.2g} of its units; shift it and the path of its frame by "
            "the same towards the origin"
        )


def _is_glb_of_ours(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    return head.startswith(_GLB) and _OURS in head
