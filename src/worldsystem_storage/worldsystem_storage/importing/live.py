# SPDX-License-Identifier: Apache-2.0
"""Video as it is played, into a new bag: access units as they are, or pictures as JPEG."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import cv2

from worldsystem_core.frames import Camera, EncodedFrame, Frame
from worldsystem_storage.errors import StorageError
from worldsystem_storage.importing.dataset import Dataset
from worldsystem_storage.importing.write import CAMERA_INFO, PICTURES, VIDEO, Messages
from worldsystem_storage.mcap_contents import RawMessage
from worldsystem_storage.new_bag import NewBag

_QUALITY = [cv2.IMWRITE_JPEG_QUALITY, 95]


class VideoImport:
    """Writes what a source delivers to the new bag `out`; raises `StorageError` when it exists.

    With `copied` H.264 and H.265 are kept bit for bit, else (other codecs, and pictures that must
    be turned) each picture becomes a JPEG. Times of recording are those of the stamps, but grow in
    the order of decoding, so that B-frames stay where they are.
    """

    def __init__(self, out: Path, *, copied: bool) -> None:
        self._bag = NewBag(out)
        self._copied = copied
        self._messages = Messages(Dataset(Path(out).name, []))
        self._camera: Camera | None = None
        self._log_ns = 0
        self.losses: Counter[str] = Counter()

    def encoded(self, unit: EncodedFrame) -> None:
        """One access unit."""
        if self._copied:
            self._add(VIDEO, unit.stamp_ns, unit)

    def frame(self, frame: Frame) -> None:
        """Its picture."""
        if frame.camera is not None and frame.camera != self._camera:
            self._camera = frame.camera
            self._add(CAMERA_INFO, frame.stamp_ns, frame.camera)
        if not self._copied:
            bgr = cv2.cvtColor(frame.rgb, cv2.COLOR_RGB2BGR)
            _, jpeg = cv2.imencode(".jpg", bgr, _QUALITY)
            self._add(PICTURES, frame.stamp_ns, jpeg.tobytes())

    def camera(self, camera: Camera, stream: str) -> None:
        """Comes with each frame too."""

    def measured(self, sample: object, stream: str) -> None:
        """Files tell none that is taken here."""

    def dropped(self, frame_id: int, reason: str, stream: str) -> None:
        """A picture that is not shown, counted by its reason; its unit is kept all the same."""
        self.losses[reason] += 1

    def abandon(self) -> None:
        """Let go of a bag that is not to be finished."""
        self._bag.abandon()

    def close(self) -> dict[str, int]:
        """Finish the bag; messages by topic. Raises `StorageError` when there are none."""
        counts = self._bag.close()
        if not counts:
            raise StorageError(f"{self._bag.folder} got no picture: none could be read")
        return counts

    def _add(self, topic: str, stamp_ns: int, what: object) -> None:
        self._log_ns = max(self._log_ns, stamp_ns)
        message = self._messages.entry(stamp_ns, topic, what)
        self._bag.add(RawMessage(message.topic, message.cdr, self._log_ns, stamp_ns))
