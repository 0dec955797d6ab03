# SPDX-License-Identifier: Apache-2.0
"""Videos and folders of pictures, played by ingest into a bag of ours."""

from __future__ import annotations

import threading
from pathlib import Path

import cv2

from worldsystem_core.errors import SourceError
from worldsystem_core.frames import Camera
from worldsystem_ingest.config import IngestConfig
from worldsystem_ingest.files.delivery import camera_with_focal
from worldsystem_ingest.files.image_folder import intrinsics_beside
from worldsystem_ingest.files.image_stamps import list_images
from worldsystem_ingest.files.video_file import VideoFile
from worldsystem_ingest.sink import OUTSIDE
from worldsystem_storage.importing.dataset import Dataset, DatasetPicture, Imported
from worldsystem_storage.importing.live import VideoImport
from worldsystem_storage.importing.write import write_dataset

_COPIED = ("h264", "hevc")


def import_pictures(path: Path, out: Path, *, fps: float, focal_px: float) -> Imported:
    """Write the video file or the folder of pictures at `path` to a new bag `out`.

    `fps` stamps what has no stamps, `focal_px` is for a camera that is not told (0: unknown).
    Raises `SourceError` for what is neither, `StorageError` when `out` exists.
    """
    config = IngestConfig(fps=fps, focal_px=focal_px)
    if path.is_dir():
        return Imported(write_dataset(_folder(path, config), out))
    return _import_video(path, out, config)


def _import_video(path: Path, out: Path, config: IngestConfig) -> Imported:
    source = VideoFile(path, config)
    facts = source.facts()
    is_plain = "turned" not in facts and "cut away" not in facts
    copied = is_plain and str(facts["video"]).split()[0] in _COPIED
    sink = VideoImport(out, copied=copied)
    try:
        summary = source.run(sink, threading.Event())
    except BaseException:
        sink.abandon()
        raise
    problems = [summary.broken] if summary.broken else []
    undecodable = sum(n for reason, n in sink.losses.items() if reason != OUTSIDE)
    if undecodable:
        problems.append(f"{undecodable} pictures of {path.name} cannot be decoded")
    return Imported(sink.close(), "; ".join(problems))


def _folder(path: Path, config: IngestConfig) -> Dataset:
    images = list_images(path)
    stamps_ns = images.stamps_ns or [round(n * 1e9 / config.fps) for n in range(len(images.paths))]
    pictures = [DatasetPicture(t, p) for t, p in zip(stamps_ns, images.paths, strict=True)]
    K = intrinsics_beside(images.root)
    first = cv2.imread(str(images.paths[0]))
    if first is None:
        raise SourceError(f"{images.paths[0]} is no picture that can be read")
    height, width = first.shape[:2]
    if K is not None:
        camera: Camera | None = Camera.from_K(K, width, height)
    else:
        camera = camera_with_focal(config.focal_px)(width, height)
    return Dataset(path.name, pictures, camera=camera)
