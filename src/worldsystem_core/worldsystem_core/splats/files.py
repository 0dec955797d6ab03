# SPDX-License-Identifier: Apache-2.0
"""Gaussians as files that other viewers and trainers open: 3DGS PLY and SPZ."""

from __future__ import annotations

import gzip
import struct
import zlib
from pathlib import Path

import numpy as np
from jaxtyping import Float32, UInt8, UInt32

from worldsystem_core.errors import ProtocolError
from worldsystem_core.splats.gaussians import SH_BAND_0, Gaussians
from worldsystem_core.whole_file import write_whole

_PLY_FIELDS = (
    *("x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2", "opacity"),
    *("scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"),
)
_LEAST_OPACITY = 1e-4
_SPZ_MAGIC, _SPZ_VERSION = 0x5053474E, 3
_SPZ_HEAD = struct.Struct("<IIIBBBB")
_SPZ_COLOUR = 0.15
_SPZ_WIDTHS = (9, 1, 3, 3, 4)  # places, opacities, colours, scales, rotations
_GZIP = 31  # zlib's number for it
_SQRT_HALF = np.sqrt(0.5)


def save_splats(gaussians: Gaussians, path: Path) -> tuple[bool, str]:
    """Write `path`, whose suffix says the form (.ply or .spz); whether it worked, and in words."""
    writers = {".ply": write_ply, ".spz": write_spz}
    write = writers.get(path.suffix.lower())
    if write is None:
        return False, f"'{path.name}' must end in .ply or .spz"
    if not len(gaussians):
        return False, f"{path} is not written: there are no splats yet"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(gaussians, path)
    except OSError as error:
        return False, f"{path} cannot be written: {error}"
    return True, f"{len(gaussians)} splats in {path.resolve()}"


def write_ply(gaussians: Gaussians, path: Path) -> Path:
    """The PLY of 3DGS: scales as logarithms, opacities as logits, rotations (w, x, y, z)."""
    rows = np.zeros((len(gaussians), len(_PLY_FIELDS)), "<f4")
    rows[:, 0:3] = gaussians.means
    rows[:, 6:9] = (gaussians.rgb - 0.5) / SH_BAND_0
    opacity = np.clip(gaussians.opacities, _LEAST_OPACITY, 1 - _LEAST_OPACITY)
    rows[:, 9] = np.log(opacity / (1 - opacity))
    rows[:, 10:13] = np.log(np.maximum(gaussians.scales, 1e-20))
    rows[:, 13:17] = gaussians.rotations
    lines = ["ply", "format binary_little_endian 1.0", f"element vertex {len(gaussians)}"]
    lines += [f"property float {name}" for name in _PLY_FIELDS]
    write_whole(path, ("\n".join([*lines, "end_header"]) + "\n").encode() + rows.tobytes())
    return path


def write_spz(gaussians: Gaussians, path: Path) -> Path:
    """SPZ version 3 (Niantic): about 10 bytes a splat, what most web viewers open.

    The format's axes are right, up, back by convention; points are written in the frame that they
    are in, and no viewer is told otherwise. Positions are told to an eighth of a splat,
    as far as 24 bits reach.
    """
    reach = float(np.abs(gaussians.means).max()) if len(gaussians) else 1.0
    bits = _fraction_bits(gaussians, reach)
    head = _SPZ_HEAD.pack(_SPZ_MAGIC, _SPZ_VERSION, len(gaussians), 0, bits, 0, 0)
    opacity = np.clip(gaussians.opacities, 0, 1)
    coefficient = (gaussians.rgb - 0.5) / SH_BAND_0
    logs = np.log(np.maximum(gaussians.scales, 1e-20))
    body = (
        _fixed_24(gaussians.means, bits),
        _octets(255 * opacity),
        _octets(255 * (_SPZ_COLOUR * coefficient + 0.5)),
        _octets(16 * (logs + 10)),
        _smallest_three(gaussians.rotations).astype("<u4").view(np.uint8),
    )
    data = gzip.compress(head + b"".join(part.tobytes() for part in body), 6, mtime=0)
    write_whole(path, data)
    return path


def read_spz(path: Path) -> Gaussians:
    """The Gaussians of an SPZ file; for programs of one's own and tests: no stage reads SPZ.

    It must be of version 3, without higher harmonics. Raises `ProtocolError` for other bytes,
    however long what is packed in them would be.
    """
    count, bits, octets = _spz_content(path)
    ends = np.cumsum([width * count for width in _SPZ_WIDTHS])
    parts = [
        part.reshape(count, width)
        for part, width in zip(np.split(octets, ends[:-1]), _SPZ_WIDTHS, strict=True)
    ]
    wide = np.zeros((count, 3, 4), np.uint8)
    wide[..., 1:] = parts[0].reshape(count, 3, 3)
    means = (wide.reshape(count, 12).view("<i4") >> 8) / np.float32(1 << bits)
    coefficient = (parts[2] / np.float32(255) - np.float32(0.5)) / np.float32(_SPZ_COLOUR)
    return Gaussians(
        means.astype(np.float32),
        np.exp(parts[3].astype(np.float32) / 16 - 10),
        _from_smallest_three(np.ascontiguousarray(parts[4]).view("<u4")[:, 0]),
        np.clip(0.5 + np.float32(SH_BAND_0) * coefficient, 0, 1),
        parts[1][:, 0] / np.float32(255),
    )


def _spz_content(path: Path) -> tuple[int, int, UInt8[np.ndarray, "n"]]:
    """How many splats, bits behind the point, and all that follows the head."""
    inflater = zlib.decompressobj(_GZIP)
    try:
        head = inflater.decompress(path.read_bytes(), _SPZ_HEAD.size)
        if len(head) < _SPZ_HEAD.size:
            raise ProtocolError(f"{path} is no SPZ: it has {len(head)} bytes where its head is")
        magic, version, count, degree, bits, _, _ = _SPZ_HEAD.unpack(head)
        if magic != _SPZ_MAGIC or version != _SPZ_VERSION or degree or bits > 24:
            raise ProtocolError(f"{path} is not SPZ version {_SPZ_VERSION} of degree 0")
        size = sum(_SPZ_WIDTHS) * count
        rest = inflater.decompress(inflater.unconsumed_tail, size + 1)
    except zlib.error as error:
        raise ProtocolError(f"{path} cannot be inflated: {error}") from error
    if len(rest) != size:
        raise ProtocolError(f"{path}: {count} splats are {size} bytes, not {len(rest)} or more")
    return count, bits, np.frombuffer(rest, np.uint8)


def _fraction_bits(gaussians: Gaussians, reach: float) -> int:
    """Bits behind the point that tell an eighth of the median splat, while `reach` fits."""
    most = np.floor(np.log2((1 << 22) / max(reach, 1e-9)))
    width = float(np.median(gaussians.scales.max(axis=1))) if len(gaussians) else 1.0
    return int(np.clip(min(np.ceil(np.log2(8 / max(width, 1e-9))), most), 0, 24))


def _octets(values: Float32[np.ndarray, "*n"]) -> UInt8[np.ndarray, "*n"]:
    return np.asarray(np.rint(np.clip(values, 0, 255)).astype(np.uint8))


def _fixed_24(means: Float32[np.ndarray, "n 3"], bits: int) -> UInt8[np.ndarray, "n 9"]:
    whole = np.rint(means.astype(np.float64) * (1 << bits)).astype("<i4")
    return np.ascontiguousarray(whole.view(np.uint8).reshape(-1, 3, 4)[..., :3]).reshape(-1, 9)


def _smallest_three(rotations: Float32[np.ndarray, "n 4"]) -> UInt32[np.ndarray, "n"]:
    """Rotations by all components (x, y, z, w) but the largest: 9 bits and a sign each."""
    xyzw = rotations[:, [1, 2, 3, 0]]
    largest = np.abs(xyzw).argmax(axis=1)
    rows = np.arange(len(xyzw))
    sign = np.where(xyzw[rows, largest] < 0, -1, 1)
    packed = largest.astype(np.uint32)
    for component in range(4):
        value = xyzw[:, component] * sign
        magnitude = np.rint(np.clip(np.abs(value) / _SQRT_HALF, 0, 1) * 511).astype(np.uint32)
        field = (value < 0).astype(np.uint32) << 9 | magnitude
        packed = np.where(largest == component, packed, packed << 10 | field)
    return np.asarray(packed)


def _from_smallest_three(packed: UInt32[np.ndarray, "n"]) -> Float32[np.ndarray, "n 4"]:
    largest = packed >> 30
    xyzw = np.zeros((len(packed), 4), np.float32)
    rest = packed.copy()
    for component in (3, 2, 1, 0):
        here = largest != component
        value = (rest & 511).astype(np.float32) / 511 * np.float32(_SQRT_HALF)
        value = np.where(rest >> 9 & 1, -value, value)
        xyzw[here, component] = value[here]
        rest = np.where(here, rest >> 10, rest)
    missing = np.sqrt(np.maximum(0, 1 - np.sum(xyzw**2, axis=1)))
    xyzw[np.arange(len(packed)), largest] = missing
    return np.ascontiguousarray(xyzw[:, [3, 0, 1, 2]])
