# SPDX-License-Identifier: Apache-2.0
"""The binary messages between the page's server and the page: the one definition.

A message is `WS`, version (u8), kind (u8), header length (u32), header, zeros up to a multiple of
8, then the arrays, each starting at a multiple of 8; all little-endian. The header is msgpack:
`[{plain field: value}, {array field: [byte offset behind the header, *shape]}]`.
`python -m worldsystem_viewer.protocol` prints the page's decoder, `web/protocol.js`.
"""

from __future__ import annotations

import json
import struct
import sys
from dataclasses import dataclass, fields
from typing import Any, get_type_hints

import msgpack
import numpy as np
from jaxtyping import Float32, Int32, UInt8, UInt32

from worldsystem_core.errors import ProtocolError

VERSION = 1
_HEAD = struct.Struct("<2sBBI")
_MAGIC = b"WS"
_ALIGNMENT = 8
_JS_ARRAYS = {
    "uint8": "Uint8Array",
    "int32": "Int32Array",
    "uint32": "Uint32Array",
    "float32": "Float32Array",
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Hello:
    """First message of a connection; `resumed` says that the page keeps the mesh that it has.

    `mesh` is how the surface comes: `raw` (`MeshUpdate`) or `code` (`MeshCode`).
    """

    session: str
    resumed: bool
    mesh: str


@dataclass(frozen=True, kw_only=True, eq=False)
class MeshUpdate:
    """Blocks that replace those of the same index, and indices to remove; world units.

    `change` is what a page sends back after a reconnection. Vertices, colours and faces of all
    blocks lie one behind the other; faces index into their own block.
    """

    change: int
    total_vertices: int
    total_faces: int
    removed: Int32[np.ndarray, "r 3"]
    index: Int32[np.ndarray, "b 3"]
    vertex_count: UInt32[np.ndarray, "b"]
    face_count: UInt32[np.ndarray, "b"]
    vertices: Float32[np.ndarray, "v 3"]
    colours: UInt8[np.ndarray, "v 3"]
    faces: UInt32[np.ndarray, "f 3"]


@dataclass(frozen=True, kw_only=True, eq=False)
class MeshCode:
    """As `MeshUpdate`, with the blocks in the block code (docs/mesh_code.md) or, empty, none.

    The page now has everything up to `change` at full level, which is what it sends back after a
    reconnection, and some of what came later.
    """

    change: int
    total_vertices: int
    total_faces: int
    removed: Int32[np.ndarray, "r 3"]
    code: UInt8[np.ndarray, "n"]


@dataclass(frozen=True, kw_only=True, eq=False)
class PathUpdate:
    """Camera centres from number `start` on; replaces what the page has from there [world]."""

    start: int
    positions: Float32[np.ndarray, "n 3"]


@dataclass(frozen=True, kw_only=True, eq=False)
class PoseUpdate:
    """The newest camera pose, row-major."""

    frame_id: int
    stamp_ns: int
    state: str
    scale: str
    confidence: float
    world_from_cam: Float32[np.ndarray, "4 4"]


@dataclass(frozen=True, kw_only=True, eq=False)
class KeyframesUpdate:
    """All keyframe poses, and the camera [px] that took the newest."""

    width: int
    height: int
    fx: float
    fy: float
    id: Int32[np.ndarray, "k"]
    world_from_cam: Float32[np.ndarray, "k 4 4"]


@dataclass(frozen=True, kw_only=True, eq=False)
class PointsUpdate:
    """A sample of the newest keyframe's points, in the world frame as its pose was then."""

    keyframe_id: int
    points: Float32[np.ndarray, "n 3"]
    colours: UInt8[np.ndarray, "n 3"]


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageUpdate:
    """The newest picture; `full_width` × `full_height` are the pixels that track boxes refer to."""

    stamp_ns: int
    full_width: int
    full_height: int
    jpeg: UInt8[np.ndarray, "n"]


@dataclass(frozen=True, kw_only=True, eq=False)
class TracksUpdate:
    """What is seen in the newest segmented frame, boxes [px]; `state` as in `TrackState`."""

    stamp_ns: int
    width: int
    height: int
    label: list[str]
    id: Int32[np.ndarray, "t"]
    score: Float32[np.ndarray, "t"]
    state: UInt8[np.ndarray, "t"]
    box_px: Int32[np.ndarray, "t 4"]


@dataclass(frozen=True, kw_only=True, eq=False)
class ObjectsUpdate:
    """All objects of the map; oriented boxes with edge lengths `size` [world units]."""

    label: list[str]
    id: Int32[np.ndarray, "o"]
    score: Float32[np.ndarray, "o"]
    world_from_box: Float32[np.ndarray, "o 4 4"]
    size: Float32[np.ndarray, "o 3"]


@dataclass(frozen=True, kw_only=True, eq=False)
class StatusUpdate:
    """Named values for the status bar; the pipeline decides which."""

    values: dict[str, Any]  # whatever msgpack carries


Message = (
    Hello
    | MeshUpdate
    | PathUpdate
    | PoseUpdate
    | KeyframesUpdate
    | PointsUpdate
    | ImageUpdate
    | TracksUpdate
    | ObjectsUpdate
    | StatusUpdate
    | MeshCode
)
KINDS: dict[int, type[Message]] = {
    1: Hello,
    2: MeshUpdate,
    3: PathUpdate,
    4: PoseUpdate,
    5: KeyframesUpdate,
    6: PointsUpdate,
    7: ImageUpdate,
    8: TracksUpdate,
    9: ObjectsUpdate,
    10: StatusUpdate,
    11: MeshCode,
}


def array_fields(message_type: type[Message]) -> dict[str, str]:
    """Field name → dtype of the fields that travel as raw numbers, read from their types."""
    hints = get_type_hints(message_type)
    return {
        item.name: hints[item.name].dtypes[0]
        for item in fields(message_type)
        if hasattr(hints[item.name], "dtypes")
    }


_KIND_OF = {message_type: kind for kind, message_type in KINDS.items()}
_DTYPES = {message_type: array_fields(message_type) for message_type in KINDS.values()}


def encode(message: Message) -> bytes:
    """The bytes of `message`; arrays must have the declared dtype."""
    dtypes = _DTYPES[type(message)]
    plain: dict[str, object] = {}
    places: dict[str, list[int]] = {}
    parts: list[bytes] = []
    offset = 0
    for item in fields(message):
        value = getattr(message, item.name)
        dtype = dtypes.get(item.name)
        if dtype is None:
            plain[item.name] = value
            continue
        if value.dtype != dtype:
            raise ProtocolError(
                f"{type(message).__name__}.{item.name} is {value.dtype}, not {dtype}"
            )
        places[item.name] = [offset, *value.shape]
        parts.append(_padded(value.tobytes()))
        offset += len(parts[-1])
    header = msgpack.packb([plain, places])
    head = _HEAD.pack(_MAGIC, VERSION, _KIND_OF[type(message)], len(header))
    return b"".join([_padded(head + header), *parts])


def decode(data: bytes) -> Message:
    """Read one message; arrays are read-only views on `data`. Raises `ProtocolError`."""
    if len(data) < _HEAD.size:
        raise ProtocolError(f"message of {len(data)} bytes is shorter than its 8-byte head")
    magic, version, kind, size = _HEAD.unpack_from(data)
    if magic != _MAGIC or version != VERSION:
        raise ProtocolError(f"not a message of version {VERSION}: starts with {data[:4].hex()}")
    if kind not in KINDS:
        raise ProtocolError(f"unknown message kind {kind}; known: 1 to {max(KINDS)}")
    try:
        plain, places = msgpack.unpackb(data[_HEAD.size : _HEAD.size + size])
        body = _HEAD.size + size + -(_HEAD.size + size) % _ALIGNMENT
        values = {**plain, **_arrays(_DTYPES[KINDS[kind]], data, body, places)}
        return KINDS[kind](**values)
    except (ValueError, TypeError, KeyError, msgpack.UnpackException) as error:
        raise ProtocolError(f"damaged {KINDS[kind].__name__}: {error}") from error


def _arrays(
    dtypes: dict[str, str], data: bytes, body: int, places: dict[str, list[int]]
) -> dict[str, np.ndarray]:
    found = {}
    for name, (offset, *shape) in places.items():
        flat = np.frombuffer(data, np.dtype(dtypes[name]), int(np.prod(shape)), body + offset)
        found[name] = flat.reshape(shape)
    return found


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % _ALIGNMENT)


def javascript() -> str:
    """The page's decoder as an ES module; `web/protocol.js` must hold exactly this."""
    kinds = {
        str(kind): {"name": message_type.__name__, "arrays": _DTYPES[message_type]}
        for kind, message_type in KINDS.items()
    }
    arrays = ", ".join(f"{dtype}: {name}" for dtype, name in _JS_ARRAYS.items())
    return _JS.format(
        version=VERSION, kinds=json.dumps(kinds, indent=2), arrays=arrays, alignment=_ALIGNMENT
    )


_JS = """\
// SPDX-License-Identifier: Apache-2.0
// Generated by `python -m worldsystem_viewer.protocol`; edit protocol.py instead.

import {{ decode as unpack }} from "./vendor/msgpack.min.js";

export const VERSION = {version};

const KINDS = {kinds};

const ARRAYS = {{ {arrays} }};

// Array fields become typed arrays that view `buffer`, with their shape in `shapes`.
export function decode(buffer) {{
  const head = new DataView(buffer);
  if (buffer.byteLength < 8 || head.getUint16(0, true) !== 0x5357) {{
    throw new Error("not a WorldSystem message");
  }}
  if (head.getUint8(2) !== VERSION) {{
    throw new Error(`server speaks protocol ${{head.getUint8(2)}}, this page ${{VERSION}}: reload`);
  }}
  const kind = KINDS[head.getUint8(3)];
  if (!kind) throw new Error(`unknown message kind ${{head.getUint8(3)}}`);
  const size = head.getUint32(4, true);
  const [plain, places] = unpack(new Uint8Array(buffer, 8, size));
  const body = Math.ceil((8 + size) / {alignment}) * {alignment};
  const shapes = {{}};
  for (const [name, [offset, ...shape]] of Object.entries(places)) {{
    const count = shape.reduce((product, length) => product * length, 1);
    plain[name] = new ARRAYS[kind.arrays[name]](buffer, body + offset, count);
    shapes[name] = shape;
  }}
  return {{ kind: kind.name, shapes, ...plain }};
}}
"""

if __name__ == "__main__":
    sys.stdout.write(javascript())
