# SPDX-License-Identifier: Apache-2.0
"""The best picture of each object and when it was seen, from tracks and earlier pictures."""

from __future__ import annotations

import threading
from array import array
from collections import OrderedDict
from dataclasses import dataclass, field, replace

import cv2
import numpy as np
from jaxtyping import UInt8

from worldsystem_core.objects import MapObjects, Track, TrackFrame, TrackState
from worldsystem_core.reconstruction import Keyframe
from worldsystem_core.thinning import rows_that_stay
from worldsystem_viewer.protocol import FoundUpdate, ObjectDetail
from worldsystem_viewer.whole_picture import whole_tracks

_MOST_SIGHTINGS = 256
_ENTRY_BYTES = 1000
"""Of an object beside its picture and sightings."""
_MOST_PICTURE_BYTES, _MOST_KEYFRAME_BYTES = 96 * 2**20, 16 * 2**20
_MOST_PICTURES = 90
_PADDING = 0.2
_LONGEST_PX = 320
_BETTER = 1.15
_QUALITY = 85


@dataclass
class _Entry:
    """What is known of one object; of many sightings those of long ago are thinned out."""

    label: str = ""
    first_seen_ns: int = 0
    sightings: int = 0
    seen_ns: array[int] = field(default_factory=lambda: array("q"))
    scores: array[float] = field(default_factory=lambda: array("f"))
    value: float = 0.0
    jpeg: UInt8[np.ndarray, "n"] = field(default_factory=lambda: np.zeros(0, np.uint8))

    @property
    def bytes(self) -> int:
        return _ENTRY_BYTES + self.jpeg.nbytes + 12 * len(self.seen_ns)

    def see(self, stamp_ns: int, score: float) -> None:
        self.sightings += 1
        self.seen_ns.append(stamp_ns)
        self.scores.append(score)
        if len(self.seen_ns) > _MOST_SIGHTINGS:
            stay = rows_that_stay(np.array(self.seen_ns)).tolist()
            self.seen_ns = array("q", [self.seen_ns[row] for row in stay])
            self.scores = array("f", [self.scores[row] for row in stay])


class _Pictures:
    """The newest pictures by their stamps, by reference."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._held: OrderedDict[int, np.ndarray] = OrderedDict()
        self._bytes = 0

    def put(self, rgb: UInt8[np.ndarray, "h w 3"], stamp_ns: int) -> None:
        before = self._held.pop(stamp_ns, None)
        self._bytes += rgb.nbytes - (0 if before is None else before.nbytes)
        self._held[stamp_ns] = rgb
        while self._bytes > self._most_bytes or len(self._held) > _MOST_PICTURES:
            self._bytes -= self._held.popitem(last=False)[1].nbytes

    def get(self, stamp_ns: int) -> UInt8[np.ndarray, "h w 3"] | None:
        return self._held.get(stamp_ns)


class Album:
    """Takes pictures, keyframes and tracks in the order in which they come; from any thread.

    Objects are kept up to `most_bytes`; those that were seen longest ago go.
    """

    def __init__(self, most_bytes: int = 64 * 2**20) -> None:
        self._most_bytes = most_bytes
        self._lock = threading.Lock()
        self._pictures = _Pictures(_MOST_PICTURE_BYTES)
        self._keyframes = _Pictures(_MOST_KEYFRAME_BYTES)
        self._entries: OrderedDict[int, _Entry] = OrderedDict()
        self._entry_bytes = 0
        self._objects: MapObjects | None = None

    def picture(self, rgb: UInt8[np.ndarray, "h w 3"], stamp_ns: int) -> None:
        """Remember a picture, by reference, until its tracks come or it is too old."""
        with self._lock:
            self._pictures.put(rgb, stamp_ns)

    def keyframe(self, keyframe: Keyframe) -> None:
        """Its picture serves where the full one is gone already: of large video only half a second
        is held."""
        with self._lock:
            self._keyframes.put(keyframe.rgb, keyframe.stamp_ns)

    def tracks(self, frame: TrackFrame) -> None:
        """Count what is seen, and cut it out where it is seen better than before."""
        with self._lock:
            rgb = self._pictures.get(frame.stamp_ns)
            if rgb is None:
                rgb = self._keyframes.get(frame.stamp_ns)
            for track in frame.tracks:
                if track.state is TrackState.CONFIRMED:
                    self._see(track, frame, rgb)

    def objects(self, objects: MapObjects) -> None:
        """The objects that one can ask for. An id that another object has now, as after the objects
        of a map were loaded, has none of the earlier one's pictures."""
        with self._lock:
            self._objects = objects
            for item in objects.objects:
                entry = self._entries.get(item.id)
                if entry is None:
                    continue
                if entry.first_seen_ns not in (0, item.first_seen_ns):
                    self._entry_bytes -= self._entries.pop(item.id).bytes
                else:
                    entry.first_seen_ns = item.first_seen_ns

    def detail(self, object_id: int) -> ObjectDetail:
        """All that is known of one object; empty where nothing is."""
        with self._lock:
            entry = self._entries.get(object_id, _Entry())
            known = self._objects.objects if self._objects else ()
            label = next((item.label for item in known if item.id == object_id), entry.label)
            jpeg, sightings = entry.jpeg, entry.sightings
            seen_s, score = np.array(entry.seen_ns) / 1e9, np.array(entry.scores, np.float32)
        return ObjectDetail(
            id=object_id,
            label=label,
            sightings=sightings,
            jpeg=jpeg,
            seen_s=seen_s,
            score=score,
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
        entry = self._entries.pop(track.id, None)
        self._entry_bytes -= 0 if entry is None else entry.bytes
        entry = self._entries[track.id] = entry or _Entry()
        entry.label = track.label
        entry.see(frame.stamp_ns, track.score)
        self._picture_of(entry, track, frame, rgb)
        self._entry_bytes += entry.bytes
        while self._entry_bytes > self._most_bytes:
            self._entry_bytes -= self._entries.popitem(last=False)[1].bytes

    def _picture_of(
        self, entry: _Entry, track: Track, frame: TrackFrame, rgb: np.ndarray | None
    ) -> None:
        """Cut the object out of the picture if it is seen better there than before."""
        height, width = frame.labels.shape
        if rgb is None or rgb.size == 0:
            return
        value = track.score * track.area_px / (height * width)
        value *= 0.5 if _touches_rim(track, width, height) else 1.0
        if value > _BETTER * entry.value:
            whole = whole_tracks(replace(frame, tracks=(track,)), rgb.shape)
            height, width = whole.labels.shape
            entry.value, entry.jpeg = value, _jpeg(_cut(rgb, whole.tracks[0], (width, height)))


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
