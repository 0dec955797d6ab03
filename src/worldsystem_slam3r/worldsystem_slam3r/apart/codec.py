# SPDX-License-Identifier: Apache-2.0
"""What goes between a stage and its worker as bytes: our own data classes, and nothing else.

A message becomes a msgpack header and the bytes of its arrays, which are neither copied nor packed.
Only the classes named here are ever made from bytes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import fields
from enum import Enum
from typing import Any

import msgpack
import numpy as np

from worldsystem_core import errors, frames, reconstruction, telemetry
from worldsystem_core.splats.gaussians import Gaussians
from worldsystem_slam3r.config import Slam3rConfig
from worldsystem_slam3r.health import Health
from worldsystem_slam3r.running import Answer, Condition

_CLASSES: dict[str, type[Any]] = {
    kind.__name__: kind
    for kind in (
        *(frames.Frame, frames.Camera, Slam3rConfig, Health, Answer, Condition, Gaussians),
        *(reconstruction.Pose, reconstruction.NewKeyframe, reconstruction.Keyframe),
        *(reconstruction.MovedKeyframes, reconstruction.RemovedKeyframes, reconstruction.Successor),
        *(telemetry.ImuSample, telemetry.AttitudeSample, telemetry.GpsFix),
        *(telemetry.PressureSample, telemetry.BatterySample, telemetry.OdometrySample),
    )
}
_ENUMS: dict[str, type[Enum]] = {
    kind.__name__: kind for kind in (reconstruction.TrackingState, reconstruction.ScaleState)
}
_NUMBERS = re.compile(r"[<>|][biuf]\d{1,2}")
_PLAIN = (type(None), bool, int, float, str)
_SMALL_BYTES = 4096
"""Arrays up to here lie in the header: a correction of a large map is thousands of poses."""
_ARRAY, _CLASS, _ENUM, _TUPLE, _DICT, _ERROR = "a", "c", "e", "t", "d", "x"


def pack(item: Any) -> list[bytes | memoryview]:
    """The header and the buffers of `item`: data classes named above, containers, arrays, numbers,
    texts and errors. Another type is a `TypeError`."""
    buffers: list[bytes | memoryview] = [b""]
    buffers[0] = msgpack.packb(_packed(item, buffers))
    return buffers


def unpack(header: bytes | memoryview, buffers: Sequence[Any]) -> Any:
    """The item again; its arrays are views of `buffers`."""
    return _unpacked(msgpack.unpackb(header, strict_map_key=False), buffers)


def _packed(item: Any, buffers: list[bytes | memoryview]) -> Any:
    if isinstance(item, _PLAIN):
        return item
    if isinstance(item, np.ndarray):
        told = [item.dtype.str, list(item.shape)]
        if item.nbytes <= _SMALL_BYTES:
            return [_ARRAY, item.tobytes(), *told]
        buffers.append(np.ascontiguousarray(item).data.cast("B"))
        return [_ARRAY, len(buffers) - 2, *told]
    if isinstance(item, np.generic):
        return item.item()
    if isinstance(item, Enum):
        return [_ENUM, type(item).__name__, item.name]
    if isinstance(item, dict):
        pairs = [[_packed(k, buffers), _packed(v, buffers)] for k, v in item.items()]
        return [_DICT, pairs]
    if isinstance(item, tuple | list):
        return [_TUPLE, isinstance(item, tuple), [_packed(each, buffers) for each in item]]
    if isinstance(item, Exception):
        return [_ERROR, type(item).__name__, str(item)]
    name = type(item).__name__
    if _CLASSES.get(name) is not type(item):
        raise TypeError(f"{name} is not one of what a worker is told: {sorted(_CLASSES)}")
    values = [[f.name, _packed(getattr(item, f.name), buffers)] for f in fields(item)]
    return [_CLASS, name, values]


def _unpacked(told: Any, buffers: Sequence[Any]) -> Any:
    if not isinstance(told, list):
        return told
    kind, *rest = told
    if kind == _ARRAY:
        where, dtype, shape = rest
        if not _NUMBERS.fullmatch(dtype):  # numpy would evaluate other texts
            raise ValueError(f"{dtype!r:.40} is no type of numbers")
        held = bytearray(where) if isinstance(where, bytes) else buffers[where]
        return np.frombuffer(held, np.dtype(dtype)).reshape(shape)
    if kind == _ENUM:
        return _ENUMS[rest[0]][rest[1]]
    if kind == _DICT:
        return {_unpacked(k, buffers): _unpacked(v, buffers) for k, v in rest[0]}
    if kind == _TUPLE:
        items = [_unpacked(each, buffers) for each in rest[1]]
        return tuple(items) if rest[0] else items
    if kind == _ERROR:
        return _error(*rest)
    name, values = rest
    return _CLASSES[name](**{field: _unpacked(value, buffers) for field, value in values})


def _error(name: str, text: str) -> Exception:
    """One of ours as it was raised, so that a person is told what to do; any other by its name."""
    kind = getattr(errors, name, None)
    if isinstance(kind, type) and issubclass(kind, errors.WorldSystemError):
        error = kind.__new__(kind)
        Exception.__init__(error, text)
        return error
    return RuntimeError(f"{name}: {text}")
