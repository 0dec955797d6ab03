# SPDX-License-Identifier: Apache-2.0
"""What a frame becomes on entry: a straight grey picture of the processing size, and its K."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float64, UInt8

from worldsystem_core.errors import BackendError, ShapeChanged
from worldsystem_core.frames import Camera, Frame
from worldsystem_slam3r.geometric.lens import Lens, LensChange
from worldsystem_slam3r.told_camera import with_known_distortion

PRIOR_FOCAL_WIDTHS = 0.9
"""Focal length over picture width assumed of an unknown camera (58° across)."""
LEAST_SIDE_PX = 32
SAME_FOCAL = 0.1
"""A phone's own focal length changes by less when it focuses."""
SAME_SHAPE = 0.05
"""Difference of width over height up to which pictures count as alike."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Picture:
    """One frame ready for tracking: `grey` (even width and height) of the pinhole `camera`."""

    frame_id: int
    stamp_ns: int
    grey: UInt8[np.ndarray, "hh ww"]
    rgb: UInt8[np.ndarray, "h w 3"]
    camera: Camera

    @property
    def K4(self) -> Float64[np.ndarray, "4"]:
        """(fx, fy, cx, cy) of the processing size."""
        c = self.camera
        return np.array([c.fx, c.fy, c.cx, c.cy])

    def small_rgb(self) -> UInt8[np.ndarray, "h w 3"]:
        """Colour at half the processing size, aligned with dense depth."""
        h, w = self.grey.shape
        return np.asarray(cv2.resize(self.rgb, (w // 2, h // 2), interpolation=cv2.INTER_AREA))


class Intake:
    """Brings frames to one size and removes lens distortion; remembers the stream's camera.

    A lens that was found out (`adopt`) takes the place of what is told or assumed. `refused`: a
    picture had another shape than those before it.
    """

    def __init__(self, processing_width: int, focal_px: float) -> None:
        self._processing_width = processing_width
        self._focal_px = focal_px
        self._size: tuple[int, int] | None = None
        self._lens: Lens | None = None
        self._told: Camera | None = None
        self._widest = 0
        self._adopted = False
        self.camera_is_unknown = False
        self.refused = False

    def anew(self) -> Intake:
        """One that knows nothing of the stream yet."""
        return Intake(self._processing_width, self._focal_px)

    @property
    def lens(self) -> Lens:
        """The lens of the last picture; asking before the first is a fault here."""
        assert self._lens is not None
        return self._lens

    def adopt(self, filmed: Camera) -> LensChange:
        """Use `filmed` (of the processing size) from now on; returns the way there."""
        change = LensChange(self.lens, Lens.of(filmed))
        self._lens = Lens.of(filmed)
        self._adopted = True
        return change

    def picture(self, frame: Frame) -> Picture:
        """Prepare `frame`; a change of the picture's aspect ratio is a `ShapeChanged`."""
        width, height = self._processing_size(frame)
        self._learn_camera(frame, width, height)
        rgb = frame.rgb
        if rgb.shape[:2] != (height, width):
            rgb = np.asarray(cv2.resize(rgb, (width, height), interpolation=cv2.INTER_AREA))
        rgb = self.lens.straightened(rgb)
        return Picture(
            frame_id=frame.id,
            stamp_ns=frame.stamp_ns,
            grey=np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)),
            rgb=rgb,
            camera=self.lens.pinhole,
        )

    def _processing_size(self, frame: Frame) -> tuple[int, int]:
        width = min(self._processing_width, frame.width) // 2 * 2
        height = round(frame.height * width / frame.width / 2) * 2
        shape = frame.width / frame.height
        before = self._size
        if before is not None and abs(before[0] / before[1] - shape) <= SAME_SHAPE:
            return before
        if min(width, height) < LEAST_SIDE_PX:
            raise BackendError(f"pictures of {frame.width}×{frame.height} are too small")
        if before is not None:
            self.refused = True
            raise ShapeChanged(
                f"the picture's shape changed to {frame.width}×{frame.height} within the stream; "
                "start a new reconstruction for it"
            )
        self._size = (width, height)
        return self._size

    def _learn_camera(self, frame: Frame, width: int, height: int) -> None:
        camera = self._camera(frame).resized(width, height)
        if self._adopted:
            self._refuse_another(camera, frame)
        elif camera != self._told:
            self._told, self._lens = camera, Lens.of(camera)

    def _refuse_another(self, camera: Camera, frame: Frame) -> None:
        """What was found out of the lens is that of the camera that was told, or not, before."""
        assert self._told is not None  # a lens is adopted for one
        if self._focal_px <= 0 and abs(camera.fx / self._told.fx - 1.0) > SAME_FOCAL:
            self.refused = True
            raise ShapeChanged(
                f"pictures of {frame.width}×{frame.height} are of another camera now; "
                "start a new reconstruction for it"
            )

    def _camera(self, frame: Frame) -> Camera:
        centred = {"cx": 0.5 * (frame.width - 1), "cy": 0.5 * (frame.height - 1)}
        size = {"width": frame.width, "height": frame.height}
        if self._focal_px > 0:
            self._widest = max(self._widest, frame.width)
            told = self._focal_px * frame.width / self._widest  # senders on a bad link send less
            return Camera(fx=told, fy=told, **centred, **size)  # type: ignore[arg-type]
        if frame.camera is not None:
            return with_known_distortion(frame.camera).resized(frame.width, frame.height)
        self.camera_is_unknown = True
        focal = PRIOR_FOCAL_WIDTHS * frame.width
        return Camera(fx=focal, fy=focal, **centred, **size)  # type: ignore[arg-type]
