# SPDX-License-Identifier: Apache-2.0
"""Which detection is which track: shared voxels first, then nearness, then the look of movers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64
from scipy.optimize import linear_sum_assignment

from worldsystem_segment.objects.track_kernels import count_beside
from worldsystem_segment.objects.voxels import STEPS
from worldsystem_segment.objects.world_track import Detection, WorldTrack

MIN_SCORE = 0.15
NEAR = 0.12  # scene unit: how far a centre may jump between two sightings
RECENT_FEEDS = 3
MOVER_LIKENESS = 0.6
MOVER_SPEED = 1.0  # scene units a second: what comes back may have gone so fast at most


@dataclass(frozen=True, eq=False)
class _Known:
    """The tracks side by side, as a view of stamp `stamp_ns` meets them; a row each."""

    ids: Int64[np.ndarray, "t"]
    low: Float32[np.ndarray, "t 3"]
    high: Float32[np.ndarray, "t 3"]
    lab: Float32[np.ndarray, "t 3"]
    centre: Float32[np.ndarray, "t 3"]  # where it should be by now
    gate: Float64[np.ndarray, "t"]  # how far from there it may be
    moving: Bool[np.ndarray, "t"]
    recent: Bool[np.ndarray, "t"]  # seen so lately that nearness tells something

    @staticmethod
    def of(tracks: Sequence[WorldTrack], feed: int, stamp_ns: int) -> _Known:
        speed = np.linalg.norm(np.array([t.velocity for t in tracks]), axis=1)
        elapsed_s = np.array([1e-9 * (stamp_ns - t.last_seen_ns) for t in tracks])
        return _Known(
            ids=np.array([t.id for t in tracks]),
            low=np.array([t.points.low for t in tracks]),
            high=np.array([t.points.high for t in tracks]),
            lab=np.array([t.lab for t in tracks]),
            centre=np.array([t.centre_at(stamp_ns) for t in tracks]),
            gate=NEAR + 0.7 * speed * np.clip(elapsed_s, 0.0, 2.0),
            moving=np.array([t.moving for t in tracks]),
            recent=np.array([feed - t.last_feed <= RECENT_FEEDS for t in tracks]),
        )


def match(
    detections: Sequence[Detection],
    keys: Sequence[Int64[np.ndarray, "n"]],
    tracks: Sequence[WorldTrack],
    *,
    feed: int,
    stamp_ns: int,
) -> dict[int, WorldTrack]:
    """Track of each detection that has one, by the index of the detection."""
    if not detections or not tracks:
        return {}
    known = _Known.of(tracks, feed, stamp_ns)
    score = np.zeros((len(detections), len(tracks)))
    for row, detection in enumerate(detections):
        score[row] = _scores(detection, known, _shared(detection, keys[row], tracks, known))
    found = _assigned(score, tracks)
    for row, track in _returned(detections, tracks, found, feed, stamp_ns).items():
        found[row] = track
    return found


def _assigned(
    score: Float64[np.ndarray, "d t"], tracks: Sequence[WorldTrack]
) -> dict[int, WorldTrack]:
    rows, columns = linear_sum_assignment(-score)
    pairs = zip(rows, columns, strict=True)
    return {int(r): tracks[c] for r, c in pairs if score[r, c] > MIN_SCORE}


def _shared(
    detection: Detection,
    keys: Int64[np.ndarray, "n"],
    tracks: Sequence[WorldTrack],
    known: _Known,
) -> Float64[np.ndarray, "t"]:
    """Share of voxels that the detection has in common with each track, or beside it."""
    low, high = detection.bounds
    meets = (known.low <= high + NEAR).all(axis=1) & (known.high >= low - NEAR).all(axis=1)
    shared = np.zeros(len(tracks))
    for column in np.flatnonzero(meets).tolist():
        held = tracks[column].points.keys
        size = max(1, min(len(keys), len(held)))
        shared[column] = min(1.0, count_beside(held, keys, STEPS) / size)
    return shared


def _scores(
    detection: Detection, known: _Known, shared: Float64[np.ndarray, "t"]
) -> Float64[np.ndarray, "t"]:
    alike = likeness(detection, known.lab)
    score = shared * (0.4 + 0.6 * alike)
    if detection.moves:  # a mover where something stands is more often passing it than it
        score[~known.moving] *= 0.5
    step = np.linalg.norm(detection.centre - known.centre, axis=1)
    gate = known.gate + (0.5 * NEAR if detection.moves else 0.0)
    weight = np.where(known.moving, 0.9, 0.5)
    by_place = weight * alike * np.maximum(0.0, 1.0 - step / gate)
    # followed from picture to picture: stronger than any likeness
    held = (known.ids == detection.held_id) & (score + alike > 0.3)
    best = np.where(known.recent, np.maximum(score, by_place), score)
    return np.asarray(np.where(held, 1.0 + score, best))


def likeness(detection: Detection, lab: Float32[np.ndarray, "... 3"]) -> Float64[np.ndarray, "..."]:
    """How alike colours are, in (0, 1]; lightness counts a third, for shade."""
    apart = (detection.lab - lab).astype(np.float64)
    chroma = np.hypot(apart[..., 1], apart[..., 2])
    return np.asarray(np.exp(-np.hypot(chroma, 0.33 * apart[..., 0]) / 25.0))


def _returned(
    detections: Sequence[Detection],
    tracks: Sequence[WorldTrack],
    found: dict[int, WorldTrack],
    feed: int,
    stamp_ns: int,
) -> dict[int, WorldTrack]:
    """Movers come back anywhere: by colour, size and what distance they can have gone."""
    taken = {track.id for track in found.values()}
    away = [t for t in tracks if t.moving and t.id not in taken and feed - t.last_feed > 1]
    free = [row for row in range(len(detections)) if row not in found]
    if not away or not free:
        return {}
    score = np.zeros((len(free), len(away)))
    for i, row in enumerate(free):
        for j, track in enumerate(away):
            score[i, j] = _return_score(detections[row], track, stamp_ns)
    return {free[i]: track for i, track in _assigned(score, away).items()}


def _return_score(detection: Detection, track: WorldTrack, stamp_ns: int) -> float:
    alike = float(likeness(detection, track.lab))
    elapsed_s = 1e-9 * (stamp_ns - track.last_seen_ns)
    step = float(np.linalg.norm(detection.centre - track.centre))
    ratio = detection.extent / max(track.extent, 1e-6)
    if alike < MOVER_LIKENESS or step > NEAR + MOVER_SPEED * elapsed_s:
        return 0.0
    if ratio > 2.0 or (ratio < 0.5 and not detection.truncated):
        return 0.0
    return alike
