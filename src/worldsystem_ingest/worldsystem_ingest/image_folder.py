# SPDX-License-Identifier: Apache-2.0
"""A folder of images as a source, in the order that a person would number them."""

from __future__ import annotations

import re
import threading
import time
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float64

from worldsystem_core.errors import SourceError
from worldsystem_core.frames import Camera
from worldsystem_ingest.config import IngestConfig
from worldsystem_ingest.delivery import CameraOf, Delivery, camera_with_focal
from worldsystem_ingest.sink import CORRUPT, Sink, Summary
from worldsystem_ingest.video_file import pace_of

_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm")


class ImageFolder:
    """Every image of a folder at `fps` pictures a second; a `K.txt` beside them is the camera."""

    live = False

    def __init__(self, folder: Path, config: IngestConfig) -> None:
        self._paths = sorted(
            (path for path in folder.iterdir() if path.suffix.lower() in _SUFFIXES),
            key=lambda path: _natural_order(path.name),
        )
        if not self._paths:
            known = " ".join(_SUFFIXES)
            raise SourceError(f"{folder} holds no images ({known}); give the folder they are in")
        self._config = config
        self._K = _intrinsics_beside(folder)

    def facts(self) -> dict[str, object]:
        """Nothing beside the ledger."""
        return {}

    def problem(self) -> str:
        """None that would not end the source."""
        return ""

    def run(self, sink: Sink, stop: threading.Event) -> Summary:
        """Deliver every image; one that cannot be read is dropped as `corrupt`."""
        config = self._config
        pace = pace_of(stop) if config.realtime else None
        delivery = Delivery(sink, config.stream, self._camera_of(), pace)
        delivery.rate_hz = config.fps
        delivery.start_ns = time.time_ns() if config.realtime else 0
        for path in self._paths:
            if stop.is_set():
                break
            bgr = cv2.imread(str(path), cv2.IMREAD_COLOR)
            if bgr is None:
                delivery.lost(CORRUPT)
            else:
                delivery.picture(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), None)
        return Summary(frames=delivery.frames)

    def _camera_of(self) -> CameraOf:
        K = self._K
        if K is None:
            return camera_with_focal(self._config.focal_px)
        return lambda width, height: Camera.from_K(K, width, height)


def _natural_order(name: str) -> list[tuple[int, str]]:
    parts = re.findall(r"\d+|\D+", name.lower())
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]


def _intrinsics_beside(folder: Path) -> Float64[np.ndarray, "3 3"] | None:
    for path in (folder / "K.txt", folder.parent / "K.txt"):
        if path.is_file():
            return _read_intrinsics(path)
    return None


def _read_intrinsics(path: Path) -> Float64[np.ndarray, "3 3"]:
    try:
        K = np.loadtxt(path, dtype=np.float64, delimiter=None).reshape(3, 3)
    except (ValueError, OSError) as error:
        raise SourceError(f"{path} must hold the 3x3 intrinsic matrix as text: {error}") from error
    if not np.isfinite(K).all() or K[0, 0] <= 0 or K[1, 1] <= 0:
        raise SourceError(f"{path}: focal lengths must be positive and all entries finite")
    return K
