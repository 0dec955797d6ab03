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
        self._owed: dict[int, str] = {}  # labels of those whose best picture is not told yet

    def follow(self, changes: IdChanges) -> None:
        """Crops go along with their objects."""
        for object_id in changes.given_again:
            self.history.forget(object_id)
            self._told_ns.pop(object_id, None)
            self._owed.pop(object_id, None)
        for kept_id, gone_id in changes.joined:
            self.history.rename(gone_id, kept_id)
            self._told_ns.pop(gone_id, None)
            if gone_id in self._owed:
                self._owed.setdefault(kept_id, self._owed.pop(gone_id))

    def add(self, keyframe: Keyframe, frame: TrackFrame) -> list[ObjectCrop]:
        """Keep crops of a keyframe's tracks; those that are the best of their object so far.

        At most one of each object in `crop_period_s`; one that comes too soon is told after that.
        """
        labels = {track.id: track.label for track in frame.tracks}
        self._owed |= {i: labels[i] for i in self.history.add(keyframe.rgb, frame)}
        due = []
        for object_id in [i for i in self._owed if self._may_be_told(i, frame.stamp_ns)]:
            label = self._owed.pop(object_id)
            if self.history.crops(object_id):  # else it has made way for others
                self._told_ns[object_id] = frame.stamp_ns
                due.append(self._crop(object_id, label))
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

    def _may_be_told(self, object_id: int, now_ns: int) -> bool:
        """Whether its last picture was told long enough ago, or by another clock."""
        last_ns = self._told_ns.get(object_id)
        return last_ns is None or not 0 <= now_ns - last_ns < self._period_ns

    def _crop(self, object_id: int, label: str) -> ObjectCrop:
        best = self.history.best(object_id)
        assert best is not None  # only those with crops are told
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
