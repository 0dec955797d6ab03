# SPDX-License-Identifier: Apache-2.0
"""Tracks, objects, crops and identities as ROS messages, there and back."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS")

from worldsystem_core.objects import (
    IdentifyOutcome,
    MapObject,
    MapObjects,
    ObjectCrop,
    ObjectIdentity,
    ShownTracks,
    Track,
    TrackFrame,
    TrackState,
)
from worldsystem_core.overlay import id_colour
from worldsystem_core.ros.adapters import object_pictures, objects

pytestmark = pytest.mark.ros


def _track(**given) -> Track:
    facts = {
        "id": 3, "label": "red box", "score": 0.5, "box_px": (1, 2, 4, 6), "area_px": 12,
        "age_frames": 7, "state": TrackState.CONFIRMED,
        "candidates": (("red box", 0.75), ("red ball", 0.25)),
    }  # fmt: skip
    return Track(**(facts | given))


def _frame() -> TrackFrame:
    labels = np.zeros((8, 9), np.uint16)
    labels[2:6, 1:4] = 3
    hidden = _track(id=4, area_px=0, state=TrackState.OCCLUDED, candidates=())
    return TrackFrame(
        frame_id=5, keyframe_id=2, stamp_ns=1_500_000_000, tracks=(_track(), hidden), labels=labels
    )


def test_tracks_with_candidates_and_hidden_ones_come_back_as_they_were() -> None:
    frame = _frame()
    (cdr,) = objects.TRACKS.dump(frame)
    back = objects.TRACKS.load(cdr)
    assert back.tracks == frame.tracks
    assert (back.labels == frame.labels).all()


def _thing(**given) -> MapObject:
    place = np.eye(4)
    place[:3, 3] = (1, 2, 3)
    return MapObject(
        id=9, label="chair", score=0.75, world_from_box=place, size=np.array([0.5, 0.25, 1.0]),
        point_count=40, last_seen_ns=9_000_000_001, first_seen_ns=4, sightings=12, moving=True,
        candidates=(("chair", 1.0),), identity="an oak chair",
    )  # fmt: skip


def test_objects_with_all_that_is_known_of_them_come_back_as_they_were() -> None:
    (cdr,) = objects.OBJECTS.dump(MapObjects(stamp_ns=7, objects=(_thing(),)))
    (back,) = objects.OBJECTS.load(cdr).objects
    for name, value in vars(_thing()).items():
        assert np.array_equal(getattr(back, name), value), name


def test_markers_clear_what_was_before_and_show_a_box_and_its_name() -> None:
    from rclpy.serialization import deserialize_message

    (cdr,) = object_pictures.MARKERS.dump(MapObjects(stamp_ns=7, objects=(_thing(),)))
    clear, box, name = deserialize_message(cdr, object_pictures.MARKERS.ros_type).markers
    assert (clear.action, box.type, name.type) == (3, 1, 9)
    assert (box.scale.x, box.scale.y, box.scale.z) == (0.5, 0.25, 1.0)
    assert name.text == "9 an oak chair"
    with pytest.raises(TypeError, match="segment/objects"):
        object_pictures.MARKERS.load(cdr)


def test_crops_and_identities_come_back_as_they_were() -> None:
    crop = ObjectCrop(
        id=1, label="box", stamp_ns=5, box_px=(1, 2, 3, 4), sharpness=2.5, crop_count=3,
        source_count=2, data=b"jpeg",
    )  # fmt: skip
    assert object_pictures.CROPS.load(object_pictures.CROPS.dump(crop)[0]) == crop
    said = ObjectIdentity(
        id=1, label="box", stamp_ns=5, outcome=IdentifyOutcome.FAILED, problem="no answer",
        latency_s=0.5, attempts=3,
    )  # fmt: skip
    assert object_pictures.IDENTITIES.load(object_pictures.IDENTITIES.dump(said)[0]) == said


def test_the_overlay_tints_an_objects_pixels_and_no_others() -> None:
    from rclpy.serialization import deserialize_message
    from sensor_msgs.msg import Image

    frame = _frame()
    rgb = np.zeros((8, 9, 3), np.uint8)
    only_mask = TrackFrame(**{**vars(frame), "tracks": ()})
    (cdr,) = object_pictures.OverlayAdapter().dump(ShownTracks(rgb=rgb, tracks=only_mask))
    message = deserialize_message(cdr, Image)
    drawn = np.frombuffer(message.data, np.uint8).reshape(8, 9, 3)
    assert (drawn[frame.labels == 0] == 0).all()
    assert (drawn[frame.labels == 3].max(axis=1) > 0).all()
    assert id_colour(3) != id_colour(4)
