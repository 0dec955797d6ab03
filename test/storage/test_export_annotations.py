# SPDX-License-Identifier: Apache-2.0
"""What leaves as COCO is what each keyframe shows."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from pycocotools.coco import COCO

from worldsystem_storage.export.annotations import export_coco
from worldsystem_storage.export.recorded import (
    RecordedKeyframe,
    RecordedRun,
    RecordedTrack,
    RecordedTracks,
)

HEIGHT, WIDTH = 6, 8


def keyframe(number: int) -> RecordedKeyframe:
    return RecordedKeyframe(
        id=number,
        stamp_ns=number * 10**9,
        world_from_cam=np.eye(4),
        K=np.array([[8.0, 0.0, 3.5], [0.0, 8.0, 2.5], [0.0, 0.0, 1.0]]),
        pointmap=np.full((HEIGHT, WIDTH, 3), np.nan, np.float32),
        confidence=np.zeros((HEIGHT, WIDTH), np.float32),
        rgb=np.full((HEIGHT, WIDTH, 3), 90, np.uint8),
    )


def shown(id: int, label: str, columns: int) -> RecordedTrack:
    """Fills the first columns from top to bottom; COCO's run lengths go down the columns."""
    area = columns * HEIGHT
    return RecordedTrack(
        id, label, 0.9, (0, 0, columns, HEIGHT), area, (0, area, HEIGHT * WIDTH - area)
    )


def unseen(id: int, label: str) -> RecordedTrack:
    """As the segmenter tells a track that is occluded or lost."""
    return RecordedTrack(id, label, 0.0, (0, 0, 0, 0), 0, ())


def test_an_object_that_a_keyframe_does_not_show_has_no_annotation_in_it(tmp_path: Path):
    run = RecordedRun(
        tmp_path,
        [keyframe(1), keyframe(2)],
        tracks=[
            RecordedTracks(1, WIDTH, HEIGHT, (shown(3, "chair", 2), unseen(4, "door"))),
            RecordedTracks(2, WIDTH, HEIGHT, (unseen(3, "chair"),)),
        ],
    )
    path = export_coco(run, tmp_path / "coco")
    coco = COCO(str(path))
    assert coco.getImgIds() == [1, 2]
    (annotation,) = coco.loadAnns(coco.getAnnIds())
    assert (annotation["image_id"], annotation["track_id"]) == (1, 3)
    mask = coco.annToMask(annotation)
    assert mask.sum() == annotation["area"] == mask[:, :2].sum()
    names = [each["name"] for each in json.loads(path.read_text())["categories"]]
    assert names == ["chair"], "a category that no annotation has"
