# SPDX-License-Identifier: Apache-2.0
"""Pictures on their way through the system: the camera, the encoded and the decoded frame."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float64, UInt8

from worldsystem_core.errors import NotAPicture


@dataclass(frozen=True, kw_only=True)
class Camera:
    """Pinhole camera with plumb-bob distortion (OpenCV order k1 k2 p1 p2 k3); pixels, no metres.

    Pixel centres lie at integer coordinates, as in OpenCV and `sensor_msgs/CameraInfo`.
    """

    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float
    distortion: tuple[float, ...] = ()

    @property
    def K(self) -> Float64[np.ndarray, "3 3"]:
        """Intrinsic matrix that maps a camera-frame point to homogeneous pixels."""
        return np.array(
            [[self.fx, 0.0, self.cx], [0.0, self.fy, self.cy], [0.0, 0.0, 1.0]], dtype=np.float64
        )

    @staticmethod
    def from_K(K: Float64[np.ndarray, "3 3"], width: int, height: int) -> Camera:
        """Camera without distortion from an intrinsic matrix."""
        return Camera(
            width=width,
            height=height,
            fx=float(K[0, 0]),
            fy=float(K[1, 1]),
            cx=float(K[0, 2]),
            cy=float(K[1, 2]),
        )

    @staticmethod
    def from_horizontal_fov(width: int, height: int, fov_rad: float) -> Camera:
        """Camera with square pixels and its axis through the picture's centre."""
        f = 0.5 * width / np.tan(0.5 * fov_rad)
        return Camera(
            width=width, height=height, fx=f, fy=f, cx=0.5 * (width - 1), cy=0.5 * (height - 1)
        )

    def resized(self, width: int, height: int) -> Camera:
        """The same camera for a picture resized to `width` × `height` (area-preserving mapping)."""
        sx, sy = width / self.width, height / self.height
        return replace(
            self,
            width=width,
            height=height,
            fx=self.fx * sx,
            fy=self.fy * sy,
            cx=(self.cx + 0.5) * sx - 0.5,
            cy=(self.cy + 0.5) * sy - 0.5,
        )

    def turned(self) -> Camera:
        """The same camera held upright instead of level, or back: width and height change places.

        Which way it was turned is not known, and right for both ways are the focal lengths, radial
        distortion, and a principal point in the centre; one beside it keeps its distance, on a side
        that is a guess. Tangential distortion (p1 p2) has a sign for each way and is left out.
        """
        return replace(
            self,
            width=self.height,
            height=self.width,
            fx=self.fy,
            fy=self.fx,
            cx=self.cy,
            cy=self.cx,
            distortion=tuple(0.0 if at in (2, 3) else k for at, k in enumerate(self.distortion)),
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class EncodedFrame:
    """One H.264 or H.265 access unit in Annex-B form, as received; never re-encoded.

    `stamp_ns` is the sender's capture time mapped to host time, `arrival_ns` the host time at
    which its last byte came in. A key frame carries its parameter sets; `codec` is `h264` or
    `h265`.
    """

    id: int
    stamp_ns: int
    arrival_ns: int
    data: bytes
    is_key: bool
    stream: str = "camera"
    codec: str = "h264"


@dataclass(frozen=True, kw_only=True, eq=False)
class Frame:
    """One decoded picture, shared by reference and therefore read-only.

    `id` is unique within a stream and grows with time; `camera` is None while the intrinsics are
    unknown.
    """

    id: int
    stamp_ns: int
    rgb: UInt8[np.ndarray, "h w 3"]
    camera: Camera | None = None
    stream: str = "camera"

    def __post_init__(self) -> None:
        shape = self.rgb.shape
        if len(shape) != 3 or shape[2] != 3 or self.rgb.dtype != np.uint8:
            raise NotAPicture(
                f"frame {self.id}: rgb is {self.rgb.dtype} of shape {shape}; give it as uint8 "
                "(height, width, 3), red first"
            )
        self.rgb.flags.writeable = False

    @property
    def height(self) -> int:
        return int(self.rgb.shape[0])

    @property
    def width(self) -> int:
        return int(self.rgb.shape[1])


@dataclass(frozen=True, kw_only=True)
class StampedCamera:
    """The camera that took the picture of the same stamp."""

    stamp_ns: int
    camera: Camera
