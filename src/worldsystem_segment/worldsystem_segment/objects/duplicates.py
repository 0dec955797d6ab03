# SPDX-License-Identifier: Apache-2.0
"""Two tracks that turn out to be one thing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from worldsystem_segment.objects.track_kernels import count_beside
from worldsystem_segment.objects.voxels import STEPS
from worldsystem_segment.objects.world_track import WorldTrack

SHARED = 0.6  # of the smaller one's voxels
COLOUR_APART = 18.0


def duplicates(tracks: Sequence[WorldTrack]) -> list[tuple[WorldTrack, WorldTrack]]:
    """Pairs (kept, gone): the smaller lies in the larger, looks like it, was not seen beside it.

    The older id is kept. Tracks that one view showed as two are two.
    """
    still = sorted((t for t in tracks if not t.moving and len(t.points)), key=lambda t: t.id)
    gone: set[int] = set()
    pairs = []
    for index, older in enumerate(still):
        views = {older.last_feed}  # of all that is one with it: what one of them showed beside it
        for younger in still[index + 1 :]:
            if younger.id in gone or older.id in gone or younger.last_feed in views:
                continue
            if _same(older, younger):
                pairs.append((older, younger))
                gone.add(younger.id)
                views.add(younger.last_feed)
    return pairs


def _same(a: WorldTrack, b: WorldTrack) -> bool:
    if (a.points.low > b.points.high).any() or (a.points.high < b.points.low).any():
        return False
    if float(np.linalg.norm((a.lab - b.lab)[1:])) > COLOUR_APART:
        return False
    small, large = sorted((a.points.keys, b.points.keys), key=len)
    return bool(count_beside(small, large, STEPS) > SHARED * len(small))
