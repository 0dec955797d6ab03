# SPDX-License-Identifier: Apache-2.0
"""Sixteen bytes a Gaussian, laid out as the Spark viewer keeps them on the graphics card.

Four little-endian words: r g b opacity (8 bits each); x y (half floats); z (half float) and the
octahedral axis of the rotation (8 + 8 bits); three scales (8 bits of a logarithm each) and the
angle (8 bits of half a turn). Half floats keep 11 bits, so positions belong in the frame of the
camera that saw them: the error is then at most 0.05 % of the distance, a fraction of a pixel.
"""

from __future__ import annotations

import zlib

import numpy as np
from jaxtyping import Float32, UInt32
from numba import njit

from worldsystem_core.errors import ProtocolError
from worldsystem_core.splats.gaussians import Gaussians

BYTES = 16
_LN_LEAST, _LN_MOST = -12.0, 9.0
_STEPS = 254 / (_LN_MOST - _LN_LEAST)
_SCALE_ZERO = np.exp(-30.0)
_FAR = 65_000.0  # half floats end at 65,504


def pack(gaussians: Gaussians) -> UInt32[np.ndarray, "n 4"]:
    """The words of `gaussians`; raises no error: what is out of range is clipped."""
    octets = np.empty((len(gaussians), BYTES), np.uint8)
    _pack_octets(gaussians.rgb, gaussians.opacities, gaussians.scales, gaussians.rotations, octets)
    halves = octets.view(np.uint16)
    halves[:, 2:5] = np.clip(gaussians.means, -_FAR, _FAR).astype(np.float16).view(np.uint16)
    return octets.view("<u4")


@njit(cache=True, nogil=True)
def _pack_octets(rgb, opacities, scales, rotations, octets):  # type: ignore[no-untyped-def]
    """All but the positions: colours, scales, and octahedral axes (Meyer et al., 2010)."""
    for i in range(len(octets)):
        octets[i, 0], octets[i, 1] = _octet(255 * rgb[i, 0]), _octet(255 * rgb[i, 1])
        octets[i, 2], octets[i, 3] = _octet(255 * rgb[i, 2]), _octet(255 * opacities[i])
        for k in range(3):
            steps = 0.0
            if scales[i, k] > _SCALE_ZERO:
                steps = max(1.0, (np.log(scales[i, k]) - _LN_LEAST) * _STEPS + 1.0)
            octets[i, 12 + k] = _octet(steps)
        sign = -1.0 if rotations[i, 0] < 0 else 1.0
        x, y, z = sign * rotations[i, 1], sign * rotations[i, 2], sign * rotations[i, 3]
        length = np.sqrt(x * x + y * y + z * z)
        angle = 2.0 * np.arctan2(length, sign * rotations[i, 0])
        if length < 1e-6:
            x, y, z = 1.0, 0.0, 0.0
        total = abs(x) + abs(y) + abs(z)
        u, v = x / total, y / total
        if z < 0:
            u, v = (1 - abs(v)) * (1 if u >= 0 else -1), (1 - abs(u)) * (1 if v >= 0 else -1)
        octets[i, 10], octets[i, 11] = _octet(127.5 * u + 127.5), _octet(127.5 * v + 127.5)
        octets[i, 15] = _octet(angle * (255.0 / np.pi))


@njit(cache=True, nogil=True)
def _octet(value):  # type: ignore[no-untyped-def]
    return np.uint8(min(255.0, max(0.0, np.rint(value))))


def unpack(words: UInt32[np.ndarray, "n 4"]) -> Gaussians:
    """What a viewer makes of `words`."""
    words = np.ascontiguousarray(words, dtype="<u4")
    octets = words.view(np.uint8).reshape(-1, BYTES)
    halves = words.view(np.uint16).reshape(-1, BYTES // 2)
    steps = octets[:, 12:15].astype(np.float32)
    scales = np.exp(np.float32(_LN_LEAST) + (steps - 1) / np.float32(_STEPS))
    return Gaussians(
        np.ascontiguousarray(halves[:, 2:5]).view(np.float16).astype(np.float32),
        np.where(steps == 0, np.float32(0), scales),
        _rotations(octets),
        octets[:, 0:3].astype(np.float32) / np.float32(255),
        octets[:, 3].astype(np.float32) / np.float32(255),
    )


def deflate(words: UInt32[np.ndarray, "n 4"], level: int = 3) -> bytes:
    """The words byte plane by byte plane, deflated: neighbours in the picture are alike."""
    planes = words.view(np.uint8).reshape(-1, BYTES).T
    return zlib.compress(np.ascontiguousarray(planes).tobytes(), level)


def inflate(data: bytes, count: int) -> UInt32[np.ndarray, "n 4"]:
    """The `count` splats of `deflate`; raises `ProtocolError` where they are not in `data`."""
    try:
        inflater = zlib.decompressobj()
        planes = inflater.decompress(data, BYTES * count + 1)
    except zlib.error as error:
        raise ProtocolError(f"{len(data)} bytes of splats cannot be inflated: {error}") from error
    if len(planes) != BYTES * count:
        raise ProtocolError(f"{count} splats are {BYTES * count} bytes, not {len(planes)} or more")
    octets = np.frombuffer(planes, np.uint8).reshape(BYTES, count).T
    return np.ascontiguousarray(octets).view("<u4")


def _rotations(octets: np.ndarray) -> Float32[np.ndarray, "n 4"]:
    flat = octets[:, 10:12].astype(np.float32) * np.float32(2 / 255) - 1
    axis = np.concatenate([flat, 1 - np.abs(flat).sum(axis=1, keepdims=True)], axis=1)
    below = np.maximum(-axis[:, 2:], 0)
    axis[:, :2] += np.where(flat >= 0, -below, below)
    axis /= np.linalg.norm(axis, axis=1, keepdims=True)
    half = octets[:, 15].astype(np.float32) * np.float32(0.5 * np.pi / 255)
    return np.concatenate([np.cos(half)[:, None], axis * np.sin(half)[:, None]], axis=1)
