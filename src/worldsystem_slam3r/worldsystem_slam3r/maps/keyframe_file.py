# SPDX-License-Identifier: Apache-2.0
"""One keyframe as bytes: what it is recognised by and, compressed, its dense geometry.

Depth is kept as 16 bits of its logarithm (steps below 0.02 %), colour as JPEG, confidence as 8
bits; corners and descriptors as they are. The whole is an `.npz` without pickles.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float32, Float64, UInt8, UInt16

from worldsystem_core.errors import MapError
from worldsystem_core.frames import Camera
from worldsystem_core.geometry.pinhole import pointmap_from_depth
from worldsystem_core.reconstruction import Keyframe
from worldsystem_slam3r.graph.features import Features
from worldsystem_slam3r.graph.verify import Station

_JPEG_QUALITY = 92
_PNG_FAST = [cv2.IMWRITE_PNG_COMPRESSION, 1]
_LEVELS = 65534
_MOST_BYTES = 2**30
"""Of one file's arrays, unpacked: what is more comes from somebody who wants to fill memory."""


@dataclass(frozen=True, eq=False)
class DensePart:
    """Camera, depth [the keyframe's own unit, NaN = unknown], confidence and colour."""

    camera: Camera
    depth: Float32[np.ndarray, "h w"]
    confidence: Float32[np.ndarray, "h w"]
    rgb: UInt8[np.ndarray, "h w 3"]

    @staticmethod
    def of(keyframe: Keyframe, unit: float = 1.0) -> DensePart:
        """The dense part of a keyframe whose points are `unit` times as large as here."""
        known = keyframe.confidence > 0
        depth = np.where(known, keyframe.pointmap[..., 2] / np.float32(unit), np.nan)
        return DensePart(
            keyframe.camera, depth.astype(np.float32), keyframe.confidence, keyframe.rgb
        )

    def keyframe(
        self,
        ids: tuple[int, int, int],
        world_from_cam: Float64[np.ndarray, "4 4"],
        unit: float,
    ) -> Keyframe:
        """As a keyframe in the world; `ids` are its id, its frame's and its stamp."""
        return Keyframe(
            id=ids[0],
            frame_id=ids[1],
            stamp_ns=ids[2],
            world_from_cam=world_from_cam,
            camera=self.camera,
            pointmap=pointmap_from_depth(self.depth * np.float32(unit), self.camera),
            confidence=self.confidence,
            rgb=self.rgb,
        )


def encode_dense(dense: DensePart) -> bytes:
    """Compress the dense part."""
    codes, lowest, step = _log_codes(dense.depth)
    camera = dense.camera
    buffer = io.BytesIO()
    np.savez(
        buffer,
        camera=np.array([camera.fx, camera.fy, camera.cx, camera.cy]),
        size=np.array([camera.width, camera.height]),
        depth=_png(codes),
        depth_range=np.array([lowest, step]),
        confidence=_png(np.rint(255.0 * dense.confidence).clip(0, 255).astype(np.uint8)),
        rgb=_jpeg(dense.rgb),
    )
    return buffer.getvalue()


def decode_dense(data: bytes, where: str) -> DensePart:
    """Undo `encode_dense`; bytes that are not such a part are a `MapError` naming `where`."""
    arrays = arrays_of(data, where)
    try:
        fx, fy, cx, cy = arrays["camera"].tolist()
        width, height = arrays["size"].tolist()
        lowest, step = arrays["depth_range"].tolist()
        codes = _picture(arrays["depth"], cv2.IMREAD_UNCHANGED)
        confidence = _picture(arrays["confidence"], cv2.IMREAD_UNCHANGED)
        bgr = _picture(arrays["rgb"], cv2.IMREAD_COLOR)
    except (KeyError, ValueError, cv2.error) as error:
        raise MapError(f"{where} is not a keyframe of a map ({error})") from error
    depth = np.where(codes > 0, np.exp(lowest + step * (codes.astype(np.float64) - 1)), np.nan)
    camera = Camera(width=width, height=height, fx=fx, fy=fy, cx=cx, cy=cy)
    trust = np.where(codes > 0, np.maximum(confidence, 1), 0).astype(np.float32) / 255.0
    return DensePart(camera, depth.astype(np.float32), trust, bgr[..., ::-1].copy())


def encode_station(station: Station) -> bytes:
    """What a keyframe is recognised by, as bytes."""
    buffer = io.BytesIO()
    camera, coarse = station.camera, station.coarse
    np.savez_compressed(
        buffer,
        camera=np.array([camera.fx, camera.fy, camera.cx, camera.cy]),
        size=np.array([camera.width, camera.height]),
        coarse=np.array([coarse.width, coarse.height]),
        px=station.features.px,
        codes=station.features.codes,
        points=station.features.points,
        depth=station.depth,
        grey=station.grey,
    )
    return buffer.getvalue()


def decode_station(data: bytes, id: int, where: str) -> Station:
    """Undo `encode_station` for keyframe `id`."""
    arrays = arrays_of(data, where)
    try:
        fx, fy, cx, cy = arrays["camera"].tolist()
        width, height = arrays["size"].tolist()
        camera = Camera(width=width, height=height, fx=fx, fy=fy, cx=cx, cy=cy)
        coarse = camera.resized(*arrays["coarse"].tolist())
        features = Features(arrays["px"], arrays["codes"], arrays["points"])
        return Station(id, camera, features, coarse, arrays["depth"], arrays["grey"])
    except (KeyError, ValueError) as error:
        raise MapError(f"{where} is not a keyframe of a map ({error})") from error


def _log_codes(
    depth: Float32[np.ndarray, "h w"],
) -> tuple[UInt16[np.ndarray, "h w"], float, float]:
    """Logarithms of depth as 1 … 65535, 0 = unknown; the lowest, and the step."""
    known = np.isfinite(depth) & (depth > 0)
    if not known.any():
        return np.zeros(depth.shape, np.uint16), 0.0, 1.0
    logs = np.log(np.where(known, depth, 1.0).astype(np.float64))
    lowest, highest = float(logs[known].min()), float(logs[known].max())
    step = max((highest - lowest) / _LEVELS, 1e-9)
    codes = np.where(known, 1 + np.rint((logs - lowest) / step), 0)
    return codes.clip(0, 65535).astype(np.uint16), lowest, step


def arrays_of(data: bytes, where: str) -> dict[str, np.ndarray]:
    """The arrays of an archive of a map; what is none, or too large, is a `MapError`."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as packed:
            size = sum(each.file_size for each in packed.infolist())
        if size > _MOST_BYTES:
            raise MapError(f"{where} is no file of a map: unpacked it would have {size} bytes")
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (
        ValueError,
        TypeError,
        OSError,
        EOFError,
        MemoryError,  # a claimed size
        RuntimeError,  # an archive with a password, or packed in another way
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise MapError(f"{where} cannot be read ({error})") from error


def _png(picture: np.ndarray) -> np.ndarray:
    return np.asarray(cv2.imencode(".png", picture, _PNG_FAST)[1])


def _jpeg(rgb: np.ndarray) -> np.ndarray:
    quality = [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY]
    return np.asarray(cv2.imencode(".jpg", rgb[..., ::-1], quality)[1])


def _picture(data: np.ndarray, how: int) -> np.ndarray:
    picture = cv2.imdecode(data, how)
    if picture is None:
        raise ValueError("a picture in it is damaged")
    return np.asarray(picture)
