# SPDX-License-Identifier: Apache-2.0
"""What to show of each object: new best crops as they come, an enhanced picture when asked."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import UInt8

from worldsystem_core.objects import ObjectCrop, TrackFrame
from worldsystem_core.reconstruction import Keyframe
from worldsystem_segment.config import SegmentConfig
from worldsystem_segment.crops.enhance import enhance
from worldsystem_segment.crops.history import CropHistory
from worldsystem_segment.objects.track_ids import IdChanges

JPEG_QUALITY = 90


class ObjectPictures:
    """Keeps the crops of the objects; not thread-safe."""

    def __init__(self, config: SegmentConfig) -> None:
        self.history = CropHistory(config.crops_per_object, config.max_tracks, config.crops_mb)
        self._period_ns = int(1e9 * config.crop_period_s)
        self._told_ns: dict[int, int] = {}

    def follow(self, changes: IdChanges) -> None:
        """Crops go along with their objects."""
        for object_id in changes.given_again:
            self.history.forget(object_id)
            self._told_ns.pop(object_id, None)
        for kept_id, gone_id in changes.joined:
            self.history.rename(gone_id, kept_id)
            self._told_ns.pop(gone_id, None)

    def add(self, keyframe: Keyframe, frame: TrackFrame) -> list[ObjectCrop]:
        """Keep crops of a keyframe's tracks; those that are the best of their object so far.

        At most one of each object in `crop_period_s`.
        """
        labels = {track.id: track.label for track in frame.tracks}
        due = []
        for object_id in self.history.add(keyframe.rgb, frame):
            last = self._told_ns.get(object_id)
            if last is None or frame.stamp_ns - last >= self._period_ns:
                self._told_ns[object_id] = frame.stamp_ns
                due.append(self._crop(object_id, labels[object_id]))
        if len(self._told_ns) > 4 * max(1, len(self.history)):
            known = self._told_ns.items()
            self._told_ns = {i: t for i, t in known if self.history.crops(i)}
        return due

    def enhanced(self, object_id: int, label: str) -> ObjectCrop | None:
        """The object's crops fused at twice the size; None without any crop."""
        best = self.history.best(object_id)
        if best is None:
            return None
        fused = enhance(best, self.history.crops(object_id))
        return ObjectCrop(
            id=object_id,
            label=label,
            stamp_ns=best.stamp_ns,
            box_px=best.box_px,
            sharpness=best.sharpness,
            crop_count=len(self.history.crops(object_id)),
            source_count=fused.source_count,
            data=jpeg(fused.rgb),
        )

    def _crop(self, object_id: int, label: str) -> ObjectCrop:
        best = self.history.best(object_id)
        assert best is not None  # it has just been added, and had room
        return ObjectCrop(
            id=object_id,
            label=label,
            stamp_ns=best.stamp_ns,
            box_px=best.box_px,
            sharpness=best.sharpness,
            crop_count=len(self.history.crops(object_id)),
            source_count=1,
            data=jpeg(best.rgb),
        )


def jpeg(rgb: UInt8[np.ndarray, "h w 3"]) -> bytes:
    """The picture as JPEG."""
    bgr = np.ascontiguousarray(rgb[..., ::-1])
    done, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    assert done  # an 8-bit picture of at least one pixel can always be coded
    return bytes(data)
