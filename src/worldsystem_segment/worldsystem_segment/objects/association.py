# SPDX-License-Identifier: Apache-2.0
"""Which detection is which track: shared voxels first, then nearness, then the look of movers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64, Int64
from scipy.optimize import linear_sum_assignment

from worldsystem_segment.objects.voxels import dilated, is_in
from worldsystem_segment.objects.world_track import Detection, WorldTrack

MIN_SCORE = 0.15
NEAR = 0.12  # scene unit: how far a centre may jump between two sightings
RECENT_FEEDS = 3
MOVER_LIKENESS = 0.6
MOVER_SPEED = 1.0  # scene units a second: what comes back may have gone so fast at most


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
    score = np.zeros((len(detections), len(tracks)))
    for row, detection in enumerate(detections):
        _score_row(score[row], detection, keys[row], tracks, (feed, stamp_ns))
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


def _score_row(
    row: Float64[np.ndarray, "t"],
    detection: Detection,
    keys: Int64[np.ndarray, "n"],
    tracks: Sequence[WorldTrack],
    now: tuple[int, int],
) -> None:
    low, high = detection.bounds
    low, high = low - NEAR, high + NEAR
    around = dilated(keys)
    for column, track in enumerate(tracks):
        shared = 0.0
        if not ((track.points.low > high).any() or (track.points.high < low).any()):
            held = track.points.keys
            size = max(1, min(len(keys), len(held)))
            shared = min(1.0, float(is_in(held, around).sum()) / size)
        row[column] = _score(detection, track, shared, now)


def _score(detection: Detection, track: WorldTrack, shared: float, now: tuple[int, int]) -> float:
    feed, stamp_ns = now
    alike = likeness(detection, track)
    by_voxels = shared * (0.4 + 0.6 * alike)
    if detection.moves and not track.moving:
        by_voxels *= 0.5  # a mover where something stands is more often passing it than it
    if detection.held_id == track.id and by_voxels + alike > 0.3:
        return 1.0 + by_voxels  # followed from picture to picture: stronger than any likeness
    if feed - track.last_feed > RECENT_FEEDS:
        return by_voxels
    step = float(np.linalg.norm(detection.centre - track.centre_at(stamp_ns)))
    elapsed_s = max(0.0, 1e-9 * (stamp_ns - track.last_seen_ns))
    gate = NEAR + 0.7 * float(np.linalg.norm(track.velocity)) * min(elapsed_s, 2.0)
    if detection.moves:
        gate += 0.5 * NEAR
    weight = 0.9 if track.moving else 0.5
    return max(by_voxels, weight * alike * max(0.0, 1.0 - step / gate))


def likeness(detection: Detection, track: WorldTrack) -> float:
    """How alike the colours are, in (0, 1]; lightness counts a third, for shade."""
    apart = detection.lab - track.lab
    return float(np.exp(-np.hypot(np.hypot(apart[1], apart[2]), 0.33 * apart[0]) / 25.0))


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
    alike = likeness(detection, track)
    elapsed_s = 1e-9 * (stamp_ns - track.last_seen_ns)
    step = float(np.linalg.norm(detection.centre - track.centre))
    ratio = detection.extent / max(track.extent, 1e-6)
    if alike < MOVER_LIKENESS or step > NEAR + MOVER_SPEED * elapsed_s:
        return 0.0
    if ratio > 2.0 or (ratio < 0.5 and not detection.truncated):
        return 0.0
    return alike
