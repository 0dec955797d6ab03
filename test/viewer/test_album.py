# SPDX-License-Identifier: Apache-2.0
"""What the album knows of objects after a long flight, and how much memory that takes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from world_for_viewers import keyframe, map_objects, track_frame

from worldsystem_core.objects import MapObjects, TrackFrame
from worldsystem_viewer.album import Album

RGB = np.random.default_rng(2).integers(0, 255, (360, 640, 3), np.uint8)


def sighting(id: int, stamp_ns: int) -> TrackFrame:
    frame = track_frame(0.0)
    return replace(frame, stamp_ns=stamp_ns, tracks=(replace(frame.tracks[0], id=id),))


def see(album: Album, id: int, stamp_ns: int) -> None:
    album.picture(RGB, stamp_ns)
    album.tracks(sighting(id, stamp_ns))


def test_of_many_sightings_those_of_long_ago_are_thinned_out_evenly():
    album, second_ns = Album(), 10**9
    for n in range(3000):
        album.tracks(sighting(7, n * second_ns))
    detail = album.detail(7)
    assert detail.sightings == 3000
    assert len(detail.seen_s) == len(detail.score) <= 256
    assert detail.seen_s[0] == 0.0
    assert detail.seen_s[-1] == 2999.0
    assert np.diff(detail.seen_s).max() < 3 * 3000 / 128


def test_the_objects_that_were_seen_longest_ago_go_when_memory_is_full():
    album = Album(most_bytes=100_000)
    see(album, 1, 1)
    size = len(album.detail(1).jpeg)
    assert size > 1000, "the object is seen, as large as it is"
    for key in range(2, 200):
        see(album, key, key)
        see(album, 1, 1000 + key)
    kept = [key for key in range(1, 200) if len(album.detail(key).jpeg)]
    assert kept[0] == 1, "it is seen all the time"
    assert kept[1:] == list(range(200 - len(kept[1:]), 200))
    assert 50_000 < len(kept) * (size + 1000) < 120_000


def test_another_object_of_the_same_id_has_none_of_the_pictures():
    album, item = Album(), map_objects().objects[0]
    album.objects(MapObjects(stamp_ns=0, objects=(replace(item, first_seen_ns=5),)))
    see(album, item.id, 1)
    for _ in range(2):
        album.objects(MapObjects(stamp_ns=0, objects=(replace(item, first_seen_ns=5),)))
    assert album.detail(item.id).sightings == 1
    album.objects(MapObjects(stamp_ns=0, objects=(replace(item, first_seen_ns=9),)))
    assert album.detail(item.id).sightings == 0


def test_an_album_without_memory_keeps_nothing():
    album = Album(most_bytes=1)
    see(album, 1, 1)
    assert album.detail(1).sightings == 0


def test_of_large_video_the_keyframes_picture_serves_where_the_full_one_is_gone():
    album, large = Album(), np.zeros((1080, 1920, 3), np.uint8)
    album.picture(large, 1)
    album.keyframe(replace(keyframe(0, 0.0), stamp_ns=1, rgb=RGB))
    for stamp_ns in range(2, 22):
        album.picture(large, stamp_ns)
    album.tracks(sighting(7, 1))
    assert len(album.detail(7).jpeg) > 1000
