# SPDX-License-Identifier: Apache-2.0
"""What a saved map holds, and its way to and from the atlas."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from worldsystem_core.errors import MapError
from worldsystem_core.geometry.sim3 import Sim3
from worldsystem_core.reconstruction import Keyframe, ScaleState
from worldsystem_slam3r.graph.atlas import Atlas, Kept
from worldsystem_slam3r.graph.pose_graph import Edge
from worldsystem_slam3r.maps.dense_memory import DenseMemory
from worldsystem_slam3r.maps.folder import (
    KEYFRAMES,
    Manifest,
    Part,
    read_file,
    read_manifest,
    write_map,
)
from worldsystem_slam3r.maps.keyframe_file import (
    arrays_of,
    decode_dense,
    decode_station,
    encode_station,
)
from worldsystem_slam3r.scale.enu import ENU, EnuFrame

log = logging.getLogger(__name__)

KNOWN_TURN_RAD, KNOWN_LOG_SCALE = 0.02, 0.01
"""How well the heading and the size of a saved metric map are known."""

_EDGE = np.dtype(
    [
        ("a", "<i8"),
        ("b", "<i8"),
        ("a_from_b", "<f8", 13),
        ("sigmas", "<f8", 3),
        ("loop", "?"),
    ]
)
_NODE = np.dtype(
    [
        ("id", "<i8"),
        ("frame_id", "<i8"),
        ("stamp_ns", "<i8"),
        ("submap", "<i8"),
        ("world", "<f8", 13),
        ("submap_from_cam", "<f8", (4, 4)),
        ("depth", "<f8"),
        ("stem", "S40"),
    ]
)


def dense_keyframes(kept: list[Kept], dense: DenseMemory, place: Path) -> Iterator[Keyframe]:
    """Those that have a dense part, one by one, in world units; `place` is named in errors.

    A part that cannot be read is forgotten with a warning, and no other is held up by it.
    """
    for each in kept:
        packed = dense.packed(each.id)
        if packed is None:
            continue
        try:
            part = decode_dense(packed(), str(place / _dense_name(each)))
        except MapError as error:
            log.warning("keyframe %d of the map leaves no surface: %s", each.id, error)
            dense.remove(each.id)
            continue
        ids = (each.id, each.frame_id, each.stamp_ns)
        yield part.keyframe(ids, each.world.pose, each.first_unit)


@dataclass(frozen=True, eq=False)
class MapContent:
    """A map taken out of an atlas at one moment: later changes of the atlas do not show in it.

    `parts` are the files of the keyframes: names, and functions that give their bytes, or None for
    one that memory has let go of, which stays where it was saved before.
    """

    nodes: np.ndarray
    edges: np.ndarray
    scale: ScaleState
    enu: EnuFrame | None
    parts: tuple[Part, ...]

    @staticmethod
    def of(atlas: Atlas, dense: DenseMemory, enu: EnuFrame | None) -> MapContent:
        """The placed keyframes of an atlas; sub-maps without a place are not part of the map."""
        kept = [k for k in atlas.keyframes.values() if atlas.is_placed(k.submap)]
        ids = {k.id for k in kept}
        edges = [e for e in atlas.graph.edges.values() if e.a in ids and e.b in ids]
        parts: list[Part] = []
        for keyframe in kept:
            if keyframe.station is not None:
                parts.append((_station_name(keyframe), _encoder(keyframe)))
            packed = dense.packed(keyframe.id)
            if packed is not None or dense.was_let_go(keyframe.id):
                parts.append((_dense_name(keyframe), packed))
        return MapContent(
            np.array([_node(k) for k in kept], _NODE),
            np.array([_edge(e) for e in edges], _EDGE),
            atlas.scale,
            enu,
            tuple(parts),
        )

    def save(self, folder: Path, saved_ns: int, *, begun_from: int | None = None) -> Manifest:
        """Write it as the folder's newest generation; `begun_from` as `write_map` has it."""
        graph = io.BytesIO()
        np.savez_compressed(graph, nodes=self.nodes, edges=self.edges)
        data = graph.getvalue()
        return write_map(
            folder,
            self._facts(),
            [(f"graph-{saved_ns}.npz", lambda: data), *self.parts],
            saved_ns=saved_ns,
            begun_from=begun_from,
        )

    def _facts(self) -> dict[str, object]:
        origin = None
        if self.enu is not None:
            enu = self.enu
            origin = [enu.latitude_deg, enu.longitude_deg, enu.altitude_m]
        stamps = self.nodes["stamp_ns"]
        return {
            "root": "map" if self.scale is ScaleState.METRIC else "scene",
            "origin": origin,
            "keyframes": len(self.nodes),
            "loops": int(self.edges["loop"].sum()),
            "first_stamp_ns": int(stamps.min()) if len(stamps) else 0,
            "last_stamp_ns": int(stamps.max()) if len(stamps) else 0,
        }


class SavedMap:
    """A map on disk, checked when it is opened; dense keyframes are read when asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.manifest = read_manifest(folder)
        names = [name for name in self.manifest.files if name.startswith("graph-")]
        if len(names) != 1:
            raise MapError(f"{folder} names {len(names)} graphs instead of one; map the place anew")
        data = read_file(folder, self.manifest.files[names[0]])
        arrays = arrays_of(data, str(folder / names[0]))
        try:
            self.nodes, self.edges = arrays["nodes"], arrays["edges"]
        except KeyError as error:
            raise MapError(f"{folder / names[0]} cannot be read ({error})") from error

    @property
    def scale(self) -> ScaleState:
        """Whether it is metric."""
        metric = self.manifest.facts.get("root") == "map"
        return ScaleState.METRIC if metric else ScaleState.SCENE

    @property
    def enu(self) -> EnuFrame | None:
        """Where the origin of a map lies on the earth, if it was told."""
        origin = self.manifest.facts.get("origin")
        return EnuFrame(*origin) if isinstance(origin, list) else None

    def check(self) -> None:
        """Read every file and compare it with its checksum."""
        for entry in self.manifest.files.values():
            read_file(self.folder, entry)

    def restore(self, atlas: Atlas, dense: DenseMemory) -> list[Kept]:
        """Put its keyframes into an empty atlas; their sub-maps count as placed.

        What measured its size and its axes is not saved, so anchors hardly change them.
        """
        restored = [self._kept(node) for node in self.nodes]  # one that is damaged changes nothing
        atlas.scale = self.scale
        if atlas.scale is ScaleState.METRIC:
            atlas.graph.held_log_scale = KNOWN_LOG_SCALE
            if self.enu is not None:
                atlas.axes, atlas.graph.held_turn_rad = ENU, KNOWN_TURN_RAD
        for kept in restored:
            atlas.adopt(kept)
            atlas.graph.restored.add(kept.id)
            atlas.newest[kept.submap] = max(kept.id, atlas.newest.get(kept.submap, -1))
            name = _dense_name(kept)
            entry = self.manifest.files.get(name)
            if entry is not None:
                dense.add_packed(kept.id, partial(read_file, self.folder, entry))
        for submap in {kept.submap for kept in restored}:
            atlas.mark_placed(submap)
        for row in self.edges:
            turn_rad, shift, log_scale = (float(value) for value in row["sigmas"])
            atlas.graph.add_edge(
                Edge(
                    int(row["a"]),
                    int(row["b"]),
                    _sim3(row["a_from_b"]),
                    turn_rad,
                    shift,
                    log_scale,
                    is_loop=bool(row["loop"]),
                )
            )
        return restored

    def keyframes(self, restored: list[Kept], dense: DenseMemory) -> Iterator[Keyframe]:
        """The dense keyframes one by one, in world units."""
        return dense_keyframes(restored, dense, self.folder)

    def _kept(self, node: np.ndarray) -> Kept:
        world = _sim3(node["world"])
        kept = Kept(
            id=int(node["id"]),
            frame_id=int(node["frame_id"]),
            stamp_ns=int(node["stamp_ns"]),
            submap=int(node["submap"]),
            submap_from_cam=node["submap_from_cam"].copy(),
            world=world,
            told=world,
            first_unit=world.scale,
            is_told=False,
            depth=float(node["depth"]),
            stem=bytes(node["stem"]).decode("ascii", "replace"),
        )
        entry = self.manifest.files.get(_station_name(kept))
        if entry is not None:
            data = read_file(self.folder, entry)
            kept.station = decode_station(data, kept.id, str(self.folder / entry.name))
        return kept


def _encoder(kept: Kept) -> Callable[[], bytes]:
    station = kept.station
    assert station is not None
    return lambda: encode_station(station)


def _station_name(kept: Kept) -> str:
    return f"{KEYFRAMES}/{kept.stem}-place.npz"


def _dense_name(kept: Kept) -> str:
    return f"{KEYFRAMES}/{kept.stem}-dense.npz"


def _node(kept: Kept) -> tuple[object, ...]:
    return (
        kept.id,
        kept.frame_id,
        kept.stamp_ns,
        kept.submap,
        _flat(kept.world),
        kept.submap_from_cam,
        kept.depth,
        kept.stem.encode(),
    )


def _edge(edge: Edge) -> tuple[object, ...]:
    sigmas = (edge.turn_rad, edge.shift, edge.log_scale)
    return (edge.a, edge.b, _flat(edge.a_from_b), sigmas, edge.is_loop)


def _flat(similarity: Sim3) -> Float64[np.ndarray, "13"]:
    """Scale, the rotation row by row, translation."""
    return np.concatenate([[similarity.scale], similarity.rotation.ravel(), similarity.translation])


def _sim3(flat: np.ndarray) -> Sim3:
    return Sim3(float(flat[0]), flat[1:10].reshape(3, 3).copy(), flat[10:].copy())
