# SPDX-License-Identifier: Apache-2.0
"""Which things make way when new ones need the room."""

from __future__ import annotations

import numpy as np

from worldsystem_segment.config import SegmentConfig
from worldsystem_segment.objects.track_points import TrackPoints
from worldsystem_segment.objects.world_track import WorldTrack
from worldsystem_segment.objects.world_tracker import ROOM_FOR_BIRTHS, WorldTracker


def _thing(number: int, **known) -> WorldTrack:
    nowhere = np.zeros(3, np.float32)
    return WorldTrack(
        id=number, lab=nowhere, centre=nowhere, points=TrackPoints(0.015, 16), first_feed=0,
        first_seen_ns=0, hits=5, was_confirmed=True, **known,
    )  # fmt: skip


def test_movers_that_drove_off_longest_ago_make_way_for_new_things() -> None:
    tracker = WorldTracker(SegmentConfig(max_tracks=ROOM_FOR_BIRTHS + 4))
    empty = tracker.config.vanish_keyframes
    away = [_thing(k, moving=True, last_feed=k, empty_views=empty) for k in range(1, 21)]
    standing, driving = _thing(21), _thing(22, moving=True)
    tracker.tracks = {track.id: track for track in (*away, standing, driving)}
    tracker.feed_count = 100
    tracker._drop_unbelieved()
    assert set(tracker.tracks) == {19, 20, 21, 22}
    assert tracker.forgotten == 18
