# SPDX-License-Identifier: Apache-2.0
"""The objects seen in keyframes as a COCO data set, and the video as it was received."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2

from worldsystem_storage.errors import StorageError
from worldsystem_storage.export.recorded import (
    RecordedKeyframe,
    RecordedRun,
    RecordedTrack,
    RecordedTracks,
)


def export_coco(run: RecordedRun, out: Path) -> Path:
    """`annotations.json` with boxes, masks (uncompressed run lengths) and `track_id`; `images/`.

    Pictures are the keyframes' own, at the size that the masks refer to. Tracks that a keyframe
    does not show (occluded, lost) have no annotation in it: they come without mask and area, and
    readers of COCO take an empty run-length list for anything.
    """
    if not run.tracks:
        raise StorageError(f"{run.folder} holds no tracks: segmentation saw nothing")
    by_id = {keyframe.id: keyframe for keyframe in run.keyframes}
    seen = [tracks for tracks in run.tracks if tracks.keyframe_id in by_id]
    shown = [(tracks, track) for tracks in seen for track in tracks.tracks if _is_shown(track)]
    labels = sorted({track.label for _, track in shown})
    (out / "images").mkdir(parents=True, exist_ok=True)
    images = [_image(tracks, by_id[tracks.keyframe_id], out / "images") for tracks in seen]
    annotations = [
        _annotation(track, tracks, labels.index(track.label) + 1) for tracks, track in shown
    ]
    document = {
        "images": images,
        "annotations": [{"id": n, **each} for n, each in enumerate(annotations, 1)],
        "categories": [{"id": n, "name": label} for n, label in enumerate(labels, 1)],
    }
    path = out / "annotations.json"
    path.write_text(json.dumps(document) + "\n")
    return path


def export_mp4(run: RecordedRun, out: Path) -> Path:
    """The first video file, byte for byte; a folder gets all of them.

    Videos of several sessions (streams beside the first, a recorder that was begun anew) keep their
    sessions' folders, since each session calls its first file `video.mp4`.
    """
    videos = run.videos
    if out.suffix and not out.is_dir():
        out.parent.mkdir(parents=True, exist_ok=True)
        return Path(shutil.copyfile(videos[0], out))
    is_one_session = len({video.parent for video in videos}) == 1
    base = videos[0].parent if is_one_session else run.video_folder
    for video in videos:
        copy = out / video.relative_to(base)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(video, copy)
    return out / videos[0].relative_to(base)


def _is_shown(track: RecordedTrack) -> bool:
    return track.area > 0 and bool(track.mask_rle)


def _image(tracks: RecordedTracks, keyframe: RecordedKeyframe, folder: Path) -> dict[str, object]:
    name = f"keyframe_{keyframe.id:06d}.png"
    size = (tracks.width, tracks.height)
    bgr = cv2.cvtColor(keyframe.rgb, cv2.COLOR_RGB2BGR)
    if size != (keyframe.width, keyframe.height):
        bgr = cv2.resize(bgr, size, interpolation=cv2.INTER_LINEAR)
    if not cv2.imwrite(str(folder / name), bgr):
        raise StorageError(f"{folder / name} cannot be written; is the disk full?")
    return {
        "id": keyframe.id,
        "file_name": f"images/{name}",
        "width": tracks.width,
        "height": tracks.height,
    }


def _annotation(track: RecordedTrack, tracks: RecordedTracks, category: int) -> dict[str, object]:
    x0, y0, x1, y1 = track.box
    return {
        "image_id": tracks.keyframe_id,
        "category_id": category,
        "track_id": track.id,
        "score": track.score,
        "bbox": [x0, y0, x1 - x0, y1 - y0],
        "area": track.area,
        "iscrowd": 0,
        "segmentation": {"size": [tracks.height, tracks.width], "counts": list(track.mask_rle)},
    }
