# SPDX-License-Identifier: Apache-2.0
"""A folder of images as a source, in the order that a person would number them."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
from jaxtyping import Float64, UInt8

from worldsystem_core.errors import SourceError
from worldsystem_core.frames import Camera
from worldsystem_ingest.codec.still import rgb_of_still
from worldsystem_ingest.config import IngestConfig
from worldsystem_ingest.files.delivery import (
    CameraOf,
    Delivery,
    camera_of_first_size,
    camera_with_focal,
)
from worldsystem_ingest.files.image_stamps import list_images
from worldsystem_ingest.files.video_file import pace_of
from worldsystem_ingest.sink import CORRUPT, Sink, Summary


class ImageFolder:
    """Every image of a folder; a `K.txt` in it or beside it is the camera, in the first one's size.

    Stamps are those that lists beside the images or the images' names give (see `list_images`);
    without any, pictures come at `fps` from zero. With `realtime` they come at the pace of their
    stamps, which are shifted to host time.
    """

    live = False

    def __init__(self, folder: Path, config: IngestConfig) -> None:
        if not folder.is_dir():
            raise SourceError(f"{folder} is no folder; give the folder that the images are in")
        self._folder = folder
        self._images = list_images(folder)
        self._config = config
        self._K = intrinsics_beside(self._images.root)
        self._position = 0

    def facts(self) -> dict[str, object]:
        """How many images there are, what gives their stamps, and how far they were played."""
        return {
            "folder": self._folder.name,
            "position": f"{self._position} of {len(self._images.paths)} images",
            "stamps from": self._images.stamped_by,
            "camera": "K.txt" if self._K is not None else "focal_px",
        }

    def problem(self) -> str:
        """None that would not end the source."""
        return ""

    def run(self, sink: Sink, stop: threading.Event) -> Summary:
        """Deliver every image; one that cannot be read is dropped as `corrupt`."""
        config, images = self._config, self._images
        pace = pace_of(stop) if config.realtime else None
        delivery = Delivery(sink, config.stream, self._camera_of(), pace)
        delivery.rate_hz = config.fps
        delivery.start_ns = time.time_ns() if config.realtime else 0
        shift_ns = (
            delivery.start_ns - images.stamps_ns[0] if config.realtime and images.stamps_ns else 0
        )
        for at, path in enumerate(images.paths):
            if stop.is_set():
                break
            self._position = at + 1
            rgb = _rgb_in(path)
            if rgb is None:
                delivery.lost(CORRUPT)
            else:
                stamp_ns = images.stamps_ns[at] + shift_ns if images.stamps_ns else None
                delivery.picture(rgb, stamp_ns)
        return Summary(frames=delivery.frames)

    def _camera_of(self) -> CameraOf:
        K = self._K
        if K is None:
            return camera_with_focal(self._config.focal_px)
        return camera_of_first_size(lambda width, height: Camera.from_K(K, width, height))


def intrinsics_beside(folder: Path) -> Float64[np.ndarray, "3 3"] | None:
    """What `K.txt` in a folder of images, or beside it, says of their camera."""
    for path in (folder / "K.txt", folder.parent / "K.txt"):
        if path.is_file():
            return _read_intrinsics(path)
    return None


def _rgb_in(path: Path) -> UInt8[np.ndarray, "h w 3"] | None:
    try:
        return rgb_of_still(path.read_bytes(), upright=True)
    except OSError:
        return None


def _read_intrinsics(path: Path) -> Float64[np.ndarray, "3 3"]:
    try:
        K = np.loadtxt(path, dtype=np.float64, delimiter=None).reshape(3, 3)
    except (ValueError, OSError) as error:
        raise SourceError(f"{path} must hold the 3x3 intrinsic matrix as text: {error}") from error
    if not np.isfinite(K).all() or K[0, 0] <= 0 or K[1, 1] <= 0:
        raise SourceError(f"{path}: focal lengths must be positive and all entries finite")
    return K
