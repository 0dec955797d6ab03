# SPDX-License-Identifier: Apache-2.0
"""What a stage that was begun anew tells once more is in an export once, as it was told last."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from plain_keyframe import plain_keyframe

pytest.importorskip("rclpy", reason="ROS is not set up: run these through `make test`")

from worldsystem_core.message_definitions import message_definition
from worldsystem_core.objects import Track, TrackFrame, TrackState
from worldsystem_core.reconstruction import NewKeyframe
from worldsystem_core.ros import topics
from worldsystem_core.ros.definitions import share_folders, type_name
from worldsystem_storage.bag_writer import BagWriter
from worldsystem_storage.config import StorageConfig
from worldsystem_storage.export.formats import export

STAMP = 10**18


def seen(keyframe_id: int, frame_id: int, columns: int) -> TrackFrame:
    """A box that fills the first columns of a picture of 8 by 6 pixels."""
    labels = np.zeros((6, 8), np.uint16)
    labels[:, :columns] = 3
    track = Track(
        id=3,
        label="box",
        score=0.75,
        box_px=(0, 0, columns, 6),
        area_px=6 * columns,
        age_frames=1,
        state=TrackState.CONFIRMED,
    )
    return TrackFrame(
        frame_id=frame_id, keyframe_id=keyframe_id, stamp_ns=STAMP, labels=labels, tracks=(track,)
    )


def record(folder: Path, items: list) -> None:
    bag = BagWriter(folder / "bag", StorageConfig(reserve_mib=1))
    for topic in (topics.KEYFRAME, topics.TRACKS):
        kind = type_name(topic.adapter.ros_type)
        bag.add_topic("/" + topic.name, kind, message_definition(kind, share_folders()), "")
    for at, (topic, item) in enumerate(items):
        for cdr in topic.adapter.dump(item):
            bag.write("/" + topic.name, cdr, STAMP + at, STAMP + at)
    bag.close()


def test_tracks_told_once_more_or_of_another_frame_of_that_number_are_left_out(tmp_path):
    another = NewKeyframe(replace(plain_keyframe(2).keyframe, frame_id=77))
    record(
        tmp_path,
        [
            (topics.KEYFRAME, plain_keyframe(1)),
            (topics.TRACKS, seen(1, 10, 2)),
            (topics.TRACKS, seen(1, 10, 4)),  # of a segmenter begun anew
            (topics.KEYFRAME, plain_keyframe(2)),
            (topics.TRACKS, seen(2, 20, 2)),
            (topics.KEYFRAME, another),  # of a reconstruction begun anew
        ],
    )
    document = json.loads(export(tmp_path, "coco", tmp_path / "out").read_text())
    assert [image["id"] for image in document["images"]] == [1]
    found = [(each["image_id"], each["area"]) for each in document["annotations"]]
    assert found == [(1, 24)]
