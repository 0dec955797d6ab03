# SPDX-License-Identifier: Apache-2.0
"""Scores of instance tracking against pictures of true ids.

HOTA as in Luiten et al., IJCV 129, 2021; IDF1 as in Ristani et al., ECCV-W 2016. Similarity is
the IoU of masks. An id is the same thing in all pictures of a sequence; 0 is nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.optimize import linear_sum_assignment

ALPHAS = np.arange(1, 20) * 0.05


@dataclass(frozen=True, eq=False)
class Sequence:
    """Per picture: true ids, given ids (both dense from 0) and the IoU of each pair."""

    truth: list[Int[np.ndarray, "n"]]
    given: list[Int[np.ndarray, "m"]]
    iou: list[Float[np.ndarray, "n m"]]

    @property
    def shape(self) -> tuple[int, int]:
        """Numbers of true and of given ids."""
        return _span(self.truth), _span(self.given)


def _span(ids: list[Int[np.ndarray, "n"]]) -> int:
    return 1 + max((int(i.max(initial=-1)) for i in ids), default=-1)


def sequence_of(
    truths: list[Int[np.ndarray, "h w"]], labels: list[Int[np.ndarray, "h w"]], visible_px: int
) -> Sequence:
    """Compare pictures; true objects under `visible_px` are neither asked for nor counted wrong."""
    sequence = Sequence([], [], [])
    truth_number: dict[int, int] = {}
    given_number: dict[int, int] = {}
    for truth, label in zip(truths, labels, strict=True):
        columns = int(label.max()) + 1
        joint = truth.ravel().astype(np.int64) * columns + label.ravel()
        both = np.bincount(joint, minlength=(int(truth.max()) + 1) * columns).reshape(-1, columns)
        iou = both / np.maximum(both.sum(1)[:, None] + both.sum(0)[None, :] - both, 1)
        area = both.sum(1)
        asked = [t for t in range(1, len(area)) if area[t] >= visible_px]
        small = [t for t in range(1, len(area)) if 0 < area[t] < visible_px]
        held = [int(g) for g in np.flatnonzero(both.sum(0)) if g]
        given = [g for g in held if not (iou[small, g] > 0.5).any()]
        sequence.truth.append(_dense(asked, truth_number))
        sequence.given.append(_dense(given, given_number))
        sequence.iou.append(iou[asked][:, given])
    return sequence


def _dense(ids: list[int], numbers: dict[int, int]) -> Int[np.ndarray, "n"]:
    return np.array([numbers.setdefault(i, len(numbers)) for i in ids], dtype=np.int64)


def hota(sequence: Sequence) -> float:
    """Higher order tracking accuracy, the mean over 19 thresholds; in [0, 1]."""
    shape = sequence.shape
    truth_count, given_count, overlap = np.zeros(shape[0]), np.zeros(shape[1]), np.zeros(shape)
    for truth, given, iou in zip(sequence.truth, sequence.given, sequence.iou, strict=True):
        rest = iou.sum(1)[:, None] + iou.sum(0)[None, :] - iou
        overlap[np.ix_(truth, given)] += iou / np.maximum(rest, 1e-12)
        truth_count[truth] += 1
        given_count[given] += 1
    alignment = overlap / np.maximum(truth_count[:, None] + given_count[None, :] - overlap, 1e-12)
    matches = np.zeros((len(ALPHAS), *shape))
    for truth, given, iou in zip(sequence.truth, sequence.given, sequence.iou, strict=True):
        rows, columns = linear_sum_assignment(-alignment[np.ix_(truth, given)] * iou)
        for index, alpha in enumerate(ALPHAS):
            good = iou[rows, columns] >= alpha - 1e-9
            matches[index, truth[rows[good]], given[columns[good]]] += 1
    found = matches.sum(axis=(1, 2))
    detection = found / np.maximum(truth_count.sum() + given_count.sum() - found, 1)
    rest = truth_count[:, None] + given_count[None, :] - matches
    association = (matches**2 / np.maximum(rest, 1)).sum(axis=(1, 2)) / np.maximum(found, 1)
    return float(np.sqrt(detection * association).mean())


def idf1(sequence: Sequence) -> float:
    """F1 of the best one-to-one assignment of ids over the whole sequence, at IoU 0.5."""
    together = np.zeros(sequence.shape)
    for truth, given, iou in zip(sequence.truth, sequence.given, sequence.iou, strict=True):
        together[np.ix_(truth, given)] += iou >= 0.5
    rows, columns = linear_sum_assignment(-together)
    total = sum(map(len, sequence.truth)) + sum(map(len, sequence.given))
    return float(2.0 * together[rows, columns].sum() / max(total, 1))


def holders(sequence: Sequence) -> list[dict[int, int]]:
    """Per picture: true id → the given id that holds it at IoU 0.5 or more."""
    found = []
    for truth, given, iou in zip(sequence.truth, sequence.given, sequence.iou, strict=True):
        rows, columns = np.nonzero(iou > 0.5)
        found.append({int(truth[r]): int(given[c]) for r, c in zip(rows, columns, strict=True)})
    return found


def id_switches(sequence: Sequence) -> int:
    """How often a true object is held by another id than the last time it was held."""
    last: dict[int, int] = {}
    switches = 0
    for held in holders(sequence):
        switches += sum(last.get(truth, given) != given for truth, given in held.items())
        last.update(held)
    return switches


def reentry_percent(sequence: Sequence, away: int, hits: int) -> float:
    """Share of returns with the old id, of objects held `hits` times, then not in view `away` long.

    NaN when nothing returned. [percent]
    """
    last_seen: dict[int, int] = {}
    last_id: dict[int, int] = {}
    times: dict[int, int] = {}
    kept: list[bool] = []
    gone: set[int] = set()
    for index, held in enumerate(holders(sequence)):
        for truth in map(int, sequence.truth[index]):
            if index - last_seen.get(truth, index) > away and times.get(truth, 0) >= hits:
                gone.add(truth)
            last_seen[truth] = index
        for truth, given in held.items():
            if truth in gone:
                kept.append(last_id[truth] == given)
                gone.discard(truth)
            last_id[truth] = given
            times[truth] = times.get(truth, 0) + 1
    return 100.0 * float(np.mean(kept)) if kept else float("nan")


def average_precision(
    iou: Float[np.ndarray, "n m"], scores: Float[np.ndarray, "m"], threshold: float
) -> float:
    """Area under the precision-recall curve of m scored predictions of n true objects.

    Each prediction, best score first, takes the free true object it overlaps most.
    """
    free = np.ones(len(iou), bool)
    right = []
    for column in np.argsort(-scores, kind="stable"):
        overlap = np.where(free, iou[:, column], -1.0)
        best = int(overlap.argmax()) if len(overlap) else -1
        hit = best >= 0 and overlap[best] >= threshold
        right.append(hit)
        free[best] &= not hit
    hits = np.cumsum(right)
    precision = hits / np.arange(1, len(hits) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float((envelope * np.array(right)).sum() / max(len(iou), 1))
