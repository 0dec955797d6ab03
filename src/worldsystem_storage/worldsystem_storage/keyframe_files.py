# SPDX-License-Identifier: Apache-2.0
"""Each keyframe as `keyframe_<number>.jpg` with `pose_<number>.npy`, as they are known now."""

from __future__ import annotations

import io
import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float64

from worldsystem_core.reconstruction import (
    Keyframe,
    MovedKeyframes,
    NewKeyframe,
    RemovedKeyframes,
)
from worldsystem_storage.errors import DiskFull
from worldsystem_storage.space import Reserve

log = logging.getLogger(__name__)


class KeyframeFiles:
    """Keeps the pairs in `folder` at the reconstruction's latest word.

    A pose is `world_from_cam` as float64 (4, 4). A keyframe that moves gets its pose anew with the
    next `settle`, as loop closures may move hundreds several times a second; one that is taken back
    loses both files: there is a pose for each picture and the other way round. New ones leave
    `reserve_mib` of the disk free. What cannot be written is counted in `dropped` and told once.
    `crowded_out` may be called from any thread.
    """

    def __init__(self, folder: Path, quality: int, reserve_mib: int = 0) -> None:
        self._folder = folder
        self._quality = [cv2.IMWRITE_JPEG_QUALITY, quality]
        self._reserve = Reserve(folder, reserve_mib)
        self._known: set[int] = set()
        self._moved: dict[int, Float64[np.ndarray, "4 4"]] = {}
        self._lock = threading.Lock()
        self.dropped: Counter[str] = Counter()

    def take(self, event: NewKeyframe | MovedKeyframes | RemovedKeyframes) -> str:
        """Follow one event of the reconstruction; why it was not written, empty if it was, or will
        be."""
        if isinstance(event, MovedKeyframes):
            poses = event.world_from_cam
            self._moved |= {number: poses[number] for number in poses if number in self._known}
            return ""
        try:
            if isinstance(event, NewKeyframe):
                self._add(event.keyframe)
            else:
                _for_each(event.ids, self._remove)
        except DiskFull as error:
            return self._lost("disk_full", str(error))
        except (OSError, cv2.error) as error:
            return self._lost("keyframe_not_written", str(error))
        return ""

    def settle(self) -> str:
        """Write where keyframes lie that have moved; why one was not written, empty if all were."""
        moved, self._moved = self._moved, {}
        try:
            _for_each(moved, lambda number: self._write_pose(number, moved[number]))
        except OSError as error:
            return self._lost("keyframe_not_written", str(error))
        return ""

    def crowded_out(self) -> str:
        """A keyframe was let go before it could be taken; for what reason."""
        return self._lost("queue_full", "the recorder was too slow for it")

    def _lost(self, reason: str, words: str) -> str:
        with self._lock:
            is_first = not self.dropped[reason]
            self.dropped[reason] += 1
        if is_first:
            log.error("%s: a keyframe is not written: %s; more is counted", self._folder, words)
        return reason

    def _add(self, keyframe: Keyframe) -> None:
        self._reserve.check()
        self._moved.pop(keyframe.id, None)
        bgr = cv2.cvtColor(keyframe.rgb, cv2.COLOR_RGB2BGR)
        _, jpeg = cv2.imencode(".jpg", bgr, self._quality)
        try:
            self._write_pose(keyframe.id, keyframe.world_from_cam)
            self._replace(f"keyframe_{keyframe.id}.jpg", jpeg.tobytes())
        except OSError:
            if keyframe.id not in self._known:  # else its picture of before is there
                self._remove(keyframe.id)
            raise
        self._known.add(keyframe.id)

    def _write_pose(self, number: int, world_from_cam: Float64[np.ndarray, "4 4"]) -> None:
        content = io.BytesIO()
        np.save(content, np.asarray(world_from_cam, dtype=np.float64))
        self._replace(f"pose_{number}.npy", content.getvalue())

    def _replace(self, name: str, content: bytes) -> None:
        """A crash leaves the old or the new; not synced, since a loop closure moves hundreds."""
        beside = self._folder / f".{name}.new"
        try:
            beside.write_bytes(content)
            beside.replace(self._folder / name)
        except OSError:
            with suppress(OSError):
                beside.unlink()
            raise

    def _remove(self, number: int) -> None:
        self._known.discard(number)
        self._moved.pop(number, None)
        for name in (f"keyframe_{number}.jpg", f"pose_{number}.npy"):
            (self._folder / name).unlink(missing_ok=True)


def _for_each(numbers: Iterable[int], change: Callable[[int], None]) -> None:
    """Change all that can be; raises the last `OSError` after that."""
    failure: OSError | None = None
    for number in numbers:
        try:
            change(number)
        except OSError as error:
            failure = error
    if failure is not None:
        raise failure
