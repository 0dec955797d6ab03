# SPDX-License-Identifier: Apache-2.0
"""What a frame becomes on entry: the networks' square picture, its intrinsics, and what ails it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

import cv2
import numpy as np
from jaxtyping import UInt8

from worldsystem_core.frames import Camera, Frame
from worldsystem_slam3r.model.preprocess import INPUT_PX, Crop, network_picture
from worldsystem_slam3r.told_camera import with_known_distortion

_BLANK_LEVELS = 2.0
_SAME_LEVELS = 0.25
_COMPARED_EVERY = 4


class Fault(Enum):
    """Why a picture is not shown to the networks."""

    NONE = 0
    BLANK = 1
    DUPLICATE = 2


@dataclass(frozen=True, kw_only=True, eq=False)
class Picture:
    """One frame ready for the networks; `camera` is that of the square cut-out, where known."""

    frame_id: int
    stamp_ns: int
    rgb: UInt8[np.ndarray, "h h 3"]
    camera: Camera | None
    fault: Fault


class Intake:
    """Undistorts, cuts and compares frames; sizes may change from frame to frame.

    A blank picture has next to no contrast (lens cap, decoder's grey); a duplicate shows what the
    last one showed, bit by bit or nearly (a repeated frame of a stalled stream).
    """

    def __init__(self, *, picture_px: int = INPUT_PX, focal_px: float = 0.0) -> None:
        self._picture_px = picture_px
        self._focal_px = focal_px
        self._last: np.ndarray | None = None
        self._widest = 0
        self._shape: tuple[int, int] | None = None
        self._maps: tuple[Camera, np.ndarray, np.ndarray] | None = None
        self.view_changed = False

    def picture(self, frame: Frame) -> Picture:
        """Prepare `frame`; a shape 20 times as long as wide is a `BackendError`.

        `view_changed` says afterwards whether the cut-out shows another angle than before, so
        that an estimated focal length no longer holds.
        """
        camera = self._camera(frame)
        rgb = frame.rgb
        if camera is not None and any(camera.distortion):
            rgb = self._undistorted(rgb, camera)
        square = network_picture(rgb)
        if self._picture_px != INPUT_PX:
            size = (self._picture_px, self._picture_px)
            square = np.asarray(cv2.resize(square, size, interpolation=cv2.INTER_AREA))
        self._note_shape(frame)
        return Picture(
            frame_id=frame.id,
            stamp_ns=frame.stamp_ns,
            rgb=square,
            camera=None if camera is None else self._square_camera(camera),
            fault=self._fault(square),
        )

    def _camera(self, frame: Frame) -> Camera | None:
        if self._focal_px > 0:
            self._widest = max(self._widest, frame.width)
            f = self._focal_px * frame.width / self._widest  # senders on a bad link send less
            cx, cy = 0.5 * (frame.width - 1), 0.5 * (frame.height - 1)
            return Camera(width=frame.width, height=frame.height, fx=f, fy=f, cx=cx, cy=cy)
        if frame.camera is None:
            return None
        return with_known_distortion(frame.camera).resized(frame.width, frame.height)

    def _square_camera(self, camera: Camera) -> Camera:
        crop = Crop.of(camera.width, camera.height)
        square = Camera.from_K(crop.intrinsics(camera.K), INPUT_PX, INPUT_PX)
        return square.resized(self._picture_px, self._picture_px)

    def _note_shape(self, frame: Frame) -> None:
        shape = (frame.width, frame.height)
        before, self._shape = self._shape, shape
        # Of every shape the short side is kept whole, so only its proportion changes the angle.
        self.view_changed = before is not None and before[0] * shape[1] != before[1] * shape[0]

    def _fault(self, square: np.ndarray) -> Fault:
        seen = square[::_COMPARED_EVERY, ::_COMPARED_EVERY].astype(np.float32)
        blank = seen.std(axis=(0, 1)).max() < _BLANK_LEVELS
        last = self._last
        if not blank and last is not None and np.abs(seen - last).mean() < _SAME_LEVELS:
            return Fault.DUPLICATE  # of the last that was none: small steps add up
        self._last = seen
        return Fault.BLANK if blank else Fault.NONE

    def _undistorted(self, rgb: np.ndarray, camera: Camera) -> np.ndarray:
        if self._maps is None or self._maps[0] != camera:
            K, size = camera.K, (camera.width, camera.height)
            lens = np.array(camera.distortion)
            maps = cv2.initUndistortRectifyMap(K, lens, None, K, size, cv2.CV_16SC2)
            self._maps = (replace(camera), *maps)
        return np.asarray(cv2.remap(rgb, self._maps[1], self._maps[2], cv2.INTER_LINEAR))
