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

from worldsystem_core.errors import ProtocolError
from worldsystem_core.splats.gaussians import Gaussians

BYTES = 16
_LN_LEAST, _LN_MOST = -12.0, 9.0
_STEPS = 254 / (_LN_MOST - _LN_LEAST)
_SCALE_ZERO = np.exp(-30.0)
_FAR = 65_000.0  # half floats end at 65,504


def pack(gaussians: Gaussians) -> UInt32[np.ndarray, "n 4"]:
    """The words of `gaussians`; raises no error: what is out of range is clipped."""
    words = np.empty((len(gaussians), 4), np.uint32)
    octets = words.view(np.uint8).reshape(-1, BYTES)
    halves = words.view(np.uint16).reshape(-1, BYTES // 2)
    octets[:, 0:3] = _octet(255 * gaussians.rgb)
    octets[:, 3] = _octet(255 * gaussians.opacities)
    halves[:, 2:5] = np.clip(gaussians.means, -_FAR, _FAR).astype(np.float16).view(np.uint16)
    logs = np.log(np.maximum(gaussians.scales, _SCALE_ZERO))
    steps = np.clip(np.rint((logs - np.float32(_LN_LEAST)) * np.float32(_STEPS)) + 1, 1, 255)
    octets[:, 12:15] = np.where(gaussians.scales <= _SCALE_ZERO, 0, steps)
    axis, angle = _axis_angle(gaussians.rotations)
    octets[:, 10:12] = axis
    octets[:, 15] = angle
    return words


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


def deflate(words: UInt32[np.ndarray, "n 4"], level: int = 1) -> bytes:
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


def _octet(values: Float32[np.ndarray, "*n"]) -> Float32[np.ndarray, "*n"]:
    return np.asarray(np.rint(np.clip(values, 0, 255)))


def _axis_angle(
    rotations: Float32[np.ndarray, "n 4"],
) -> tuple[Float32[np.ndarray, "n 2"], Float32[np.ndarray, "n"]]:
    """Octahedral axis (Meyer et al., 2010) and angle, in steps of 8 bits."""
    turned = rotations * np.where(rotations[:, :1] < 0, np.float32(-1), np.float32(1))
    length = np.sqrt(np.sum(turned[:, 1:] ** 2, axis=1))
    angle = 2 * np.arctan2(length, turned[:, 0])
    axis = turned[:, 1:] / np.maximum(length, np.float32(1e-20))[:, None]
    axis[length < 1e-6] = (1, 0, 0)
    folded = axis[:, :2] / np.sum(np.abs(axis), axis=1)[:, None]
    under = axis[:, 2] < 0
    sign = np.where(folded >= 0, np.float32(1), np.float32(-1))
    folded = np.where(under[:, None], (1 - np.abs(folded[:, ::-1])) * sign, folded)
    return _octet(255 * (0.5 * folded + 0.5)), _octet(angle * np.float32(255 / np.pi))


def _rotations(octets: np.ndarray) -> Float32[np.ndarray, "n 4"]:
    flat = octets[:, 10:12].astype(np.float32) * np.float32(2 / 255) - 1
    axis = np.concatenate([flat, 1 - np.abs(flat).sum(axis=1, keepdims=True)], axis=1)
    below = np.maximum(-axis[:, 2:], 0)
    axis[:, :2] += np.where(flat >= 0, -below, below)
    axis /= np.linalg.norm(axis, axis=1, keepdims=True)
    half = octets[:, 15].astype(np.float32) * np.float32(0.5 * np.pi / 255)
    return np.concatenate([np.cos(half)[:, None], axis * np.sin(half)[:, None]], axis=1)
