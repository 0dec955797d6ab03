# SPDX-License-Identifier: Apache-2.0
"""What leaves as COCO is what each keyframe shows, and every video leaves under its own name."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from pycocotools.coco import COCO

from worldsystem_storage.export.annotations import export_coco, export_mp4
from worldsystem_storage.export.recorded import (
    RecordedKeyframe,
    RecordedRun,
    RecordedTrack,
    RecordedTracks,
    Recording,
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
    recording = Recording(
        [keyframe(1), keyframe(2)],
        tracks=[
            RecordedTracks(1, WIDTH, HEIGHT, (shown(3, "chair", 2), unseen(4, "door"))),
            RecordedTracks(2, WIDTH, HEIGHT, (unseen(3, "chair"),)),
        ],
    )
    path = export_coco(RecordedRun(tmp_path, recording), tmp_path / "coco")
    coco = COCO(str(path))
    assert coco.getImgIds() == [1, 2]
    (annotation,) = coco.loadAnns(coco.getAnnIds())
    assert (annotation["image_id"], annotation["track_id"]) == (1, 3)
    mask = coco.annToMask(annotation)
    assert mask.sum() == annotation["area"] == mask[:, :2].sum()
    names = [each["name"] for each in json.loads(path.read_text())["categories"]]
    assert names == ["chair"], "a category that no annotation has"


def record_videos(folder: Path, names: list[str]) -> RecordedRun:
    """A run whose video files tell their own names."""
    for name in names:
        path = folder / "video" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return RecordedRun(folder)


def test_videos_of_several_sessions_stay_apart_and_the_first_of_all_is_named(tmp_path: Path):
    morning, noon = "20260101_080000", "20260101_120000"
    names = [f"{morning}/video.mp4", f"{morning}/video_2.mp4", f"{noon}/video.mp4"]
    names += [f"drone2/{morning}/video.mp4"]
    run = record_videos(tmp_path, names)
    first = export_mp4(run, tmp_path / "out")
    assert first.read_text() == f"{morning}/video.mp4"
    copies = {path.relative_to(tmp_path / "out") for path in (tmp_path / "out").rglob("*.mp4")}
    assert copies == {Path(name) for name in names}
    assert all((tmp_path / "out" / name).read_text() == name for name in names)


def test_videos_of_one_session_lie_flat_and_in_the_order_of_their_numbers(tmp_path: Path):
    names = [f"s/{name}" for name in ("video.mp4", *(f"video_{n}.mp4" for n in range(2, 12)))]
    run = record_videos(tmp_path, names)
    assert [path.read_text() for path in run.videos] == names
    assert export_mp4(run, tmp_path / "out") == tmp_path / "out" / "video.mp4"
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(
        name.removeprefix("s/") for name in names
    )


def test_videos_go_into_a_folder_that_is_there_also_where_its_name_has_a_dot(tmp_path: Path):
    run = record_videos(tmp_path / "run", ["s/video.mp4", "s/video_2.mp4"])
    out = tmp_path / "site.v2"
    out.mkdir()
    assert export_mp4(run, out) == out / "video.mp4"
    assert sorted(path.name for path in out.iterdir()) == ["video.mp4", "video_2.mp4"]
