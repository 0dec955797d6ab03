# SPDX-License-Identifier: Apache-2.0
"""The binary messages between the page's server and the page: the one definition.

A message is `WS`, version (u8), kind (u8), header length (u32), header, zeros up to a multiple of
8, then the arrays, each starting at a multiple of 8; all little-endian. The header is msgpack:
`[{plain field: value}, {array field: [byte offset behind the header, *shape]}]`.
`python -m worldsystem_viewer.protocol_text` makes the page's decoder, `web/protocol.js`, and the
protocol's page in the docs, `docs/page_protocol.md`, from this file.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass, fields
from typing import Any, get_type_hints

import msgpack
import numpy as np
from jaxtyping import Float32, Float64, Int32, UInt8, UInt16, UInt32

from worldsystem_core.errors import ProtocolError

VERSION = 2
_HEAD = struct.Struct("<2sBBI")
_MAGIC = b"WS"
ALIGNMENT = 8
_MOST = 1 << 31  # along an axis of an array


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
    """Keyframes that are new or corrected, ids that are gone, and the camera [px] of the newest.

    `point_scale` is the size of a keyframe's points, relative to that in which they were sent.
    `worlds` grows when all keyframes were withdrawn: what comes then is another world.
    """

    width: int
    height: int
    fx: float
    fy: float
    worlds: int
    removed: Int32[np.ndarray, "r"]
    id: Int32[np.ndarray, "k"]
    world_from_cam: Float32[np.ndarray, "k 4 4"]
    point_scale: Float32[np.ndarray, "k"]


@dataclass(frozen=True, kw_only=True, eq=False)
class PointsUpdate:
    """A sample of one keyframe's points, in its camera frame: `low + step * points`.

    They hang on their keyframe: its corrections move them, and they go when it goes.
    """

    keyframe_id: int
    step: float
    low: Float32[np.ndarray, "3"]
    points: UInt16[np.ndarray, "n 3"]
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
    """All objects of the map; oriented boxes with edge lengths `size` [world units].

    `last_seen_s` is the capture time [s].
    """

    label: list[str]
    id: Int32[np.ndarray, "o"]
    score: Float32[np.ndarray, "o"]
    world_from_box: Float32[np.ndarray, "o 4 4"]
    size: Float32[np.ndarray, "o 3"]
    points: UInt32[np.ndarray, "o"]
    last_seen_s: Float64[np.ndarray, "o"]


@dataclass(frozen=True, kw_only=True, eq=False)
class ObjectDetail:
    """Answer to `object`: its best picture (empty: none yet) and each time that it was seen.

    `seen_s` are capture times [s], ascending, thinned out where there are many of them.
    """

    id: int
    label: str
    sightings: int
    jpeg: UInt8[np.ndarray, "n"]
    seen_s: Float64[np.ndarray, "s"]
    score: Float32[np.ndarray, "s"]


@dataclass(frozen=True, kw_only=True, eq=False)
class FoundUpdate:
    """Answer to `find`: the objects that match, best first; `note` says what else is to be said."""

    text: str
    note: str
    id: Int32[np.ndarray, "f"]
    score: Float32[np.ndarray, "f"]


@dataclass(frozen=True, kw_only=True, eq=False)
class StatusUpdate:
    """Named values for the status bar; the pipeline decides which."""

    values: dict[str, Any]  # whatever msgpack carries


@dataclass(frozen=True, kw_only=True, eq=False)
class TimelineUpdate:
    """The span of capture time that this page may look back on, and where it looks now.

    `at_ns` is -1 while it shows the newest; `first_ns` equals `last_ns` while there is nothing.
    """

    first_ns: int
    last_ns: int
    at_ns: int


@dataclass(frozen=True, kw_only=True, eq=False)
class SplatsUpdate:
    """On `/ws/splats`: chunks of splats that are gone, moved (`count` -1) or replaced.

    `words` holds `count` splats of 16 bytes for each replaced chunk, as `worldsystem_core.splats.
    packed` lays them out; where `deflated`, byte plane by byte plane and deflated (zlib), of one
    chunk. `world_from_chunk` is row-major and has the chunk's scale in it. `total` is how many
    splats the world holds.
    """

    total: int
    deflated: bool
    removed: UInt32[np.ndarray, "r"]
    chunk: UInt32[np.ndarray, "k"]
    world_from_chunk: Float32[np.ndarray, "k 4 4"]
    count: Int32[np.ndarray, "k"]
    words: UInt8[np.ndarray, "n"]


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
    | ObjectDetail
    | FoundUpdate
    | TimelineUpdate
    | SplatsUpdate
)
# What a page tells the server, as JSON text: any of these names with a value.
WISHES: dict[str, str] = {
    "session": "first message only: the `session` of the connection before, to go on from there",
    "change": "first message only: the `change` of the last mesh message",
    "mesh": "first message only: `raw` or `code`",
    "mbps": "first message only: less than the server's budget for the surface [Mbit/s]",
    "visible": "false: send nothing until true comes; the newest then is what was missed",
    "layers": "list of what is shown of `points` and `image`, which are sent only then",
    "seek": "capture time [ns] that the page wants to see; null: what is newest",
    "find": "text; answered by `FoundUpdate`",
    "object": "id; answered by `ObjectDetail`",
}
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
    20: ObjectDetail,
    21: FoundUpdate,
    22: TimelineUpdate,
    30: SplatsUpdate,
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
    parts: list[bytes | memoryview] = []
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
        parts += [_raw(value), bytes(-value.nbytes % ALIGNMENT)]
        offset += value.nbytes + len(parts[-1])
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
        raise ProtocolError(f"unknown message kind {kind}; known: {sorted(KINDS)}")
    try:
        plain, places = msgpack.unpackb(data[_HEAD.size : _HEAD.size + size])
        body = _HEAD.size + size + -(_HEAD.size + size) % ALIGNMENT
        values = {
            **dict(plain),
            **_arrays(_DTYPES[KINDS[kind]], memoryview(data)[body:], dict(places)),
        }
        return KINDS[kind](**values)
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise ProtocolError(f"damaged {KINDS[kind].__name__}: {error}") from error


def _arrays(
    dtypes: dict[str, str], body: memoryview, places: dict[str, list[int]]
) -> dict[str, np.ndarray]:
    if places.keys() != dtypes.keys():
        raise ValueError(f"its arrays are {sorted(dtypes)}, not {list(places)}")
    found = {}
    for name, (offset, *shape) in places.items():
        dtype, count = np.dtype(dtypes[name]), math.prod(shape)
        end = offset + count * dtype.itemsize
        if end > len(body) or not all(0 <= number < _MOST for number in (offset, *shape)):
            raise ValueError(f"{name} of shape {shape} lies beyond the message")
        found[name] = np.frombuffer(body, dtype, count, offset).reshape(shape)
    return found


def _raw(array: np.ndarray) -> bytes | memoryview:
    """The numbers of an array as they lie in memory, which are copied once, when all is joined."""
    return np.ascontiguousarray(array).data.cast("B") if array.size else b""


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % ALIGNMENT)
