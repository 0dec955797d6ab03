# SPDX-License-Identifier: Apache-2.0
"""Keyframes' points in POSIX shared memory, for readers on this machine.

Little endian and packed: u64 timestamp_ns, u32 point_count, u32 color_format (3 = RGB), f32
pose[16] row-major, f32 bbox[6] (min xyz, max xyz), f32 points[3 n], u8 colors[3 n].
"""

from __future__ import annotations

import logging
import os
import struct
from collections import OrderedDict
from contextlib import suppress
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from typing import Any

import numpy as np

from worldsystem_bridge.bodies import bounds
from worldsystem_core.stale_segments import SHARED_MEMORY

log = logging.getLogger(__name__)

HEADER = struct.Struct("<QII16f6f")
_PREFIX = "slam3r_keyframe_"
_RGB = 3
Array = np.ndarray[Any, np.dtype[Any]]  # shapes beside each function


class SharedKeyframes:
    """A ring of the newest keyframes; the oldest is unlinked when a new one has no room.

    What a killed process left is replaced when its name comes up again; Python's resource tracker
    unlinks the rest.
    """

    def __init__(self, capacity: int = 10) -> None:
        self._capacity = capacity
        self._segments: OrderedDict[int, SharedMemory] = OrderedDict()
        self._told = False

    def write(self, id: int, timestamp_ns: int, pose: Array, points: Array, colours: Array) -> str:
        """Write keyframe `id` with world `points` (n, 3) and `colours` (n, 3); its key, empty where
        the system refuses. One that is written again keeps its place in the ring."""
        order = list(self._segments)
        behind = order[order.index(id) + 1 :] if id in order else []
        self.remove(id)
        while len(self._segments) >= self._capacity:
            self.remove(next(iter(self._segments)))
        head = HEADER.pack(timestamp_ns, len(points), _RGB, *pose.ravel(), *bounds(points).ravel())
        content = head + points.astype("<f4").tobytes() + colours.astype(np.uint8).tobytes()
        try:
            segment = _created(f"{_PREFIX}{id}", len(content))
        except OSError as error:  # such as another user's, whom the system before ran as
            if not self._told:
                log.warning("keyframe %d is not in shared memory: %s; told once", id, error)
                self._told = True
            return ""
        assert segment.buf is not None  # it was just made
        segment.buf[: len(content)] = content
        self._segments[id] = segment
        for later in behind:
            self._segments.move_to_end(later)
        return f"/{_PREFIX}{id}"

    def remove(self, id: int) -> None:
        """Unlink keyframe `id`; readers that have it open keep it."""
        segment = self._segments.pop(id, None)
        if segment is not None:
            segment.close()
            with suppress(FileNotFoundError):
                segment.unlink()

    def close(self) -> None:
        """Unlink all."""
        for keyframe_id in list(self._segments):
            self.remove(keyframe_id)


def _created(name: str, size: int) -> SharedMemory:
    try:
        segment = SharedMemory(name, create=True, size=size)
    except FileExistsError:
        stale = SharedMemory(name)
        stale.close()
        stale.unlink()
        segment = SharedMemory(name, create=True, size=size)
    try:
        _reserve(SHARED_MEMORY / name, size)
    except OSError:
        segment.close()
        segment.unlink()
        raise
    return segment


def _reserve(path: Path, size: int) -> None:
    """Take the memory before it is written to: where it is full, that is an error, no SIGBUS."""
    file = os.open(path, os.O_RDWR)
    try:
        os.posix_fallocate(file, 0, size)
    finally:
        os.close(file)
