# SPDX-License-Identifier: Apache-2.0
"""The live picture: the newest frame, scaled and JPEG-encoded in a thread of its own."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

import cv2
import numpy as np
from jaxtyping import UInt8, UInt16

from worldsystem_core.handoff import Handoff
from worldsystem_core.priority import lower_thread_priority
from worldsystem_viewer.config import ViewerConfig
from worldsystem_viewer.protocol import ImageUpdate
from worldsystem_viewer.whole_picture import whole_labels

log = logging.getLogger(__name__)
_POLL_S = 0.2
_NICENESS = 10
_REMEMBER_S = 2.0
_TINT = 0.35


class PictureEncoder:
    """Encodes at most `image_fps` pictures a second while `wanted()`, else one every other second
    where `remembered`.

    `labels` (track ids, 0 = none) are drawn as tinted areas over the picture.
    """

    def __init__(
        self,
        config: ViewerConfig,
        wanted: Callable[[], bool],
        publish: Callable[[ImageUpdate], None],
        *,
        remembered: bool = False,
    ) -> None:
        self._config = config
        self._wanted = wanted
        self._publish = publish
        self._remembered = remembered
        self._newest: Handoff[tuple[np.ndarray, int, np.ndarray | None]] = Handoff(1)
        self._thread = threading.Thread(target=self._run, name="picture", daemon=True)

    @property
    def dropped(self) -> int:
        return self._newest.dropped

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._newest.close()
        self._thread.join(timeout=5.0)

    def put(
        self,
        rgb: UInt8[np.ndarray, "h w 3"],
        stamp_ns: int,
        labels: UInt16[np.ndarray, "h2 w2"] | None,
    ) -> None:
        """Take the newest picture; one that waited is dropped and counted."""
        self._newest.put((rgb, stamp_ns, labels))

    def _run(self) -> None:
        lower_thread_priority(_NICENESS)
        idle_due = 0.0
        while not self._newest.closed:
            begun = time.monotonic()
            item = self._newest.get(_POLL_S)
            watched = self._wanted()
            if item is None or not (watched or (self._remembered and begun >= idle_due)):
                continue
            idle_due = begun + _REMEMBER_S
            try:
                self._publish(self._encoded(*item))
            except (cv2.error, ValueError):
                log.warning("a picture could not be encoded", exc_info=True)
            time.sleep(max(0.0, 1.0 / self._config.image_fps - (time.monotonic() - begun)))

    def _encoded(self, rgb: np.ndarray, stamp_ns: int, labels: np.ndarray | None) -> ImageUpdate:
        height, width = rgb.shape[:2]
        if rgb.size == 0:
            raise ValueError(f"picture of {width}x{height} has no pixels")
        scale = min(1.0, self._config.image_width / width)
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        bgr = cv2.cvtColor(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2BGR)
        if labels is not None:
            whole = whole_labels(labels, rgb.shape)
            bgr = _tinted(bgr, cv2.resize(whole, size, interpolation=cv2.INTER_NEAREST))
        done, jpeg = cv2.imencode(
            ".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, self._config.jpeg_quality]
        )
        if not done:
            raise ValueError(f"no JPEG from a picture of {width}x{height}")
        return ImageUpdate(
            stamp_ns=stamp_ns, full_width=width, full_height=height, jpeg=jpeg.reshape(-1)
        )


def _tinted(bgr: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Labelled areas tinted with a colour that depends on the id alone, as on the page."""
    hue = (labels.astype(np.uint32) * 67 % 180).astype(np.uint8)
    full = np.full_like(hue, 210)
    tint = cv2.cvtColor(np.dstack([hue, full, full]), cv2.COLOR_HSV2BGR)
    mixed = cv2.addWeighted(bgr, 1.0 - _TINT, tint, _TINT, 0.0)
    return np.where((labels > 0)[..., None], mixed, bgr)
