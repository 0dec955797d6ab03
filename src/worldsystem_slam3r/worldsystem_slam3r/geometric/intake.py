# SPDX-License-Identifier: Apache-2.0
"""What a frame becomes on entry: a straight grey picture of the processing size, and its K."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
from jaxtyping import Float64, UInt8

from worldsystem_core.errors import BackendError, ShapeChanged
from worldsystem_core.frames import Camera, Frame
from worldsystem_slam3r.geometric.lens import Lens, LensChange, distort
from worldsystem_slam3r.told_camera import with_known_distortion

PRIOR_FOCAL_WIDTHS = 0.9
"""Focal length over picture width assumed of an unknown camera (58° across)."""
LEAST_SIDE_PX = 32
SAME_FOCAL = 0.1
"""A phone's own focal length changes by less when it focuses."""
SAME_BEND = 0.01
"""Share of the picture's width by which distortion of the same lens may move the corners."""
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

    One is assumed until it is told (`camera_is_unknown`). A lens that was found out (`adopt`) takes
    the place of either. `refused`: a picture had another shape than those before it, or another
    camera than the one in use.
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

    @property
    def known_camera(self) -> Camera | None:
        """The filmed camera at the processing size, as told or found out; None while neither."""
        is_assumed = self.camera_is_unknown and not self._adopted
        return None if self._lens is None or is_assumed else self._lens.filmed

    def adopt(self, filmed: Camera) -> LensChange:
        """Use `filmed` (of the processing size) from now on; returns the way there."""
        change = LensChange(self.lens, Lens.of(filmed))
        self._lens = Lens.of(filmed)
        self._adopted = True
        return change

    def picture(self, frame: Frame, *, mapped: bool = False) -> Picture:
        """Prepare `frame`; another aspect ratio or camera is a `ShapeChanged`.

        A camera that is told only now takes the place of the one assumed, unless pictures were
        `mapped` with that: then it is another one.
        """
        width, height = self._processing_size(frame)
        self._learn_camera(frame, width, height, mapped)
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

    def _learn_camera(self, frame: Frame, width: int, height: int, mapped: bool) -> None:
        told = self._camera(frame)
        if told is None:
            if self._lens is None:
                self._lens = Lens.of(_assumed(frame).resized(width, height))
                self.camera_is_unknown = True
            return
        told = told.resized(width, height)
        begun = mapped or self._adopted
        if self._lens is None or (self.camera_is_unknown and not begun):
            self._told, self._lens, self.camera_is_unknown = told, Lens.of(told), False
        elif self._is_another(told):
            self.refused = True
            raise ShapeChanged(
                f"pictures of {frame.width}×{frame.height} are of another camera now; "
                "start a new reconstruction for it"
            )

    def _is_another(self, told: Camera) -> bool:
        """Whether the camera is neither the one told before nor the one found out since."""
        in_use = self.lens.filmed
        if self._told is None:
            return not self._adopted or _is_zoomed(told, in_use)
        return _differ(told, self._told) and _differ(told, in_use)

    def _camera(self, frame: Frame) -> Camera | None:
        """The camera as it is told, for the frame's size."""
        if self._focal_px > 0:
            self._widest = max(self._widest, frame.width)
            told = self._focal_px * frame.width / self._widest  # senders on a bad link send less
            return _centred(frame, told)
        if frame.camera is None:
            return None
        return with_known_distortion(frame.camera).resized(frame.width, frame.height)


def _assumed(frame: Frame) -> Camera:
    return _centred(frame, PRIOR_FOCAL_WIDTHS * frame.width)


def _centred(frame: Frame, focal_px: float) -> Camera:
    return Camera(
        width=frame.width,
        height=frame.height,
        fx=focal_px,
        fy=focal_px,
        cx=0.5 * (frame.width - 1),
        cy=0.5 * (frame.height - 1),
    )


def _is_zoomed(camera: Camera, other: Camera) -> bool:
    return abs(camera.fx / other.fx - 1.0) > SAME_FOCAL


def _differ(camera: Camera, other: Camera) -> bool:
    """Whether two cameras of one picture size are those of different lenses."""
    w, h = camera.width - 1.0, camera.height - 1.0
    corners = np.array([[0.0, 0.0], [w, 0.0], [0.0, h], [w, h]])
    rays = (corners - [camera.cx, camera.cy]) / [camera.fx, camera.fy]
    bend_px = distort(rays, camera) - distort(rays, replace(camera, distortion=other.distortion))
    return _is_zoomed(camera, other) or bool(np.abs(bend_px).max() > SAME_BEND * camera.width)
