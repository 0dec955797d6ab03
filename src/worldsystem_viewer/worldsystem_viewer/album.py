# SPDX-License-Identifier: Apache-2.0
"""The best picture of each object and when it was seen, from tracks and earlier pictures."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass, field

import cv2
import numpy as np
from jaxtyping import UInt8

from worldsystem_core.objects import MapObjects, Track, TrackFrame, TrackState
from worldsystem_core.reconstruction import Keyframe
from worldsystem_viewer.protocol import FoundUpdate, ObjectDetail

_MOST_OBJECTS = 5_000
_MOST_SIGHTINGS = 256
_MOST_PICTURE_BYTES = 96 * 2**20
_MOST_PICTURES = 90
_PADDING = 0.2
_LONGEST_PX = 320
_BETTER = 1.15
_QUALITY = 85


@dataclass
class _Entry:
    """What is known of one object."""

    label: str = ""
    sightings: int = 0
    seen: list[tuple[float, float]] = field(default_factory=list)  # time [s], score
    value: float = 0.0
    jpeg: UInt8[np.ndarray, "n"] = field(default_factory=lambda: np.zeros(0, np.uint8))


class Album:
    """Takes pictures, keyframes and tracks in the order in which they come; from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pictures: OrderedDict[int, np.ndarray] = OrderedDict()
        self._bytes = 0
        self._entries: OrderedDict[int, _Entry] = OrderedDict()
        self._objects: MapObjects | None = None

    def picture(self, rgb: UInt8[np.ndarray, "h w 3"], stamp_ns: int) -> None:
        """Remember a picture, by reference, until its tracks come or it is too old."""
        with self._lock:
            if stamp_ns in self._pictures and self._pictures[stamp_ns].size >= rgb.size:
                return
            before = self._pictures.pop(stamp_ns, None)
            self._bytes += rgb.nbytes - (0 if before is None else before.nbytes)
            self._pictures[stamp_ns] = rgb
            while self._bytes > _MOST_PICTURE_BYTES or len(self._pictures) > _MOST_PICTURES:
                self._bytes -= self._pictures.popitem(last=False)[1].nbytes

    def keyframe(self, keyframe: Keyframe) -> None:
        """Its picture serves where the full one is gone already."""
        self.picture(keyframe.rgb, keyframe.stamp_ns)

    def tracks(self, frame: TrackFrame) -> None:
        """Count what is seen, and cut it out where it is seen better than before."""
        with self._lock:
            rgb = self._pictures.get(frame.stamp_ns)
            for track in frame.tracks:
                if track.state is TrackState.CONFIRMED:
                    self._see(track, frame, rgb)

    def objects(self, objects: MapObjects) -> None:
        """The objects that one can ask for."""
        with self._lock:
            self._objects = objects

    def detail(self, object_id: int) -> ObjectDetail:
        """All that is known of one object; empty where nothing is."""
        with self._lock:
            entry = self._entries.get(object_id, _Entry())
            known = self._objects.objects if self._objects else ()
            label = next((item.label for item in known if item.id == object_id), entry.label)
            jpeg, seen, sightings = entry.jpeg, list(entry.seen), entry.sightings
        return ObjectDetail(
            id=object_id,
            label=label,
            sightings=sightings,
            jpeg=jpeg,
            seen_s=np.array([time_s for time_s, _ in seen], np.float64),
            score=np.array([score for _, score in seen], np.float32),
        )

    def found(self, text: str) -> FoundUpdate:
        """The objects whose label has every word of `text`, as a word's beginning."""
        with self._lock:
            known = self._objects.objects if self._objects else ()
        words = text.lower().split()
        matches = [item for item in known if words and _has_words(item.label, words)]
        matches.sort(key=lambda item: -item.score)
        return FoundUpdate(
            text=text,
            note="",
            id=np.array([item.id for item in matches], np.int32),
            score=np.array([item.score for item in matches], np.float32),
        )

    def _see(self, track: Track, frame: TrackFrame, rgb: np.ndarray | None) -> None:
        entry = self._entries.setdefault(track.id, _Entry())
        self._entries.move_to_end(track.id)
        if len(self._entries) > _MOST_OBJECTS:
            self._entries.popitem(last=False)
        entry.label = track.label
        entry.sightings += 1
        entry.seen.append((frame.stamp_ns / 1e9, track.score))
        if len(entry.seen) > _MOST_SIGHTINGS:
            del entry.seen[1::2]
        height, width = frame.labels.shape
        if rgb is None or rgb.size == 0:
            return
        value = track.score * track.area_px / (height * width)
        value *= 0.5 if _touches_rim(track, width, height) else 1.0
        if value > _BETTER * entry.value:
            entry.value, entry.jpeg = value, _jpeg(_cut(rgb, track, (width, height)))


def _touches_rim(track: Track, width: int, height: int) -> bool:
    x0, y0, x1, y1 = track.box_px
    return x0 <= 1 or y0 <= 1 or x1 >= width - 1 or y1 >= height - 1


def _cut(rgb: np.ndarray, track: Track, size: tuple[int, int]) -> np.ndarray:
    """The box with a margin, at most `_LONGEST_PX` wide or high."""
    scale = np.array([rgb.shape[1] / size[0], rgb.shape[0] / size[1]] * 2)
    x0, y0, x1, y1 = np.array(track.box_px) * scale
    pad_x, pad_y = _PADDING * (x1 - x0), _PADDING * (y1 - y0)
    rows = slice(max(0, int(y0 - pad_y)), int(y1 + pad_y) + 1)
    columns = slice(max(0, int(x0 - pad_x)), int(x1 + pad_x) + 1)
    crop = rgb[rows, columns]
    shrink = min(1.0, _LONGEST_PX / max(*crop.shape[:2], 1))
    wanted = (max(1, round(crop.shape[1] * shrink)), max(1, round(crop.shape[0] * shrink)))
    return np.asarray(cv2.resize(crop, wanted, interpolation=cv2.INTER_AREA))


def _jpeg(crop: np.ndarray) -> UInt8[np.ndarray, "n"]:
    bgr = cv2.cvtColor(crop, cv2.COLOR_RGB2BGR)
    done, jpeg = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    return np.asarray(jpeg.reshape(-1) if done else np.zeros(0, np.uint8))


def _has_words(label: str, wanted: list[str]) -> bool:
    words = label.lower().replace("_", " ").split()
    return all(any(word.startswith(part) for word in words) for part in wanted)
