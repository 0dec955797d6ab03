# SPDX-License-Identifier: Apache-2.0
"""The objects of a map as a file beside it, so that they keep their ids in the next session.

`objects.npz`, a NumPy archive without pickles: a JSON header, and the points of all objects with
the keyframes they hang on, and which keyframes were told. It is written whole and moved over the
old one.
"""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from worldsystem_core.errors import MapError
from worldsystem_core.reconstruction import ScaleState
from worldsystem_core.told_keyframes import ToldKeyframes
from worldsystem_core.whole_file import write_whole
from worldsystem_segment.objects.object_map import ObjectMap
from worldsystem_segment.objects.track_points import TrackPoints
from worldsystem_segment.objects.world_track import WorldTrack

NAME = "objects.npz"
FORMAT, VERSION = "worldsystem-objects", 1
_TOLD = "told/"


def save_objects(objects: ObjectMap, folder: Path, told: ToldKeyframes) -> int:
    """Write what was confirmed into `folder`, and which keyframes were `told`; returns how many
    objects. A `MapError` says why not."""
    packed, count = pack_objects(objects, told)
    write_objects(packed, folder)
    return count


def pack_objects(objects: ObjectMap, told: ToldKeyframes) -> tuple[bytes, int]:
    """The file of what was confirmed, and of which keyframes were `told`; and how many objects."""
    tracker = objects.tracker
    known = (t for t in tracker.tracks.values() if tracker.confirmed(t) or t.was_confirmed)
    kept = [t for t in known if len(t.points)]  # with hidden ones, which have their ids again
    header = {
        "format": FORMAT,
        "version": VERSION,
        "scale": objects.scale.name,
        "unit": objects.unit,
        "up": None if objects.up is None else [float(x) for x in objects.up],
        "next_id": tracker.next_id,
        "objects": [_facts(track) for track in kept],
    }
    arrays: dict[str, Any] = {"header": np.frombuffer(json.dumps(header).encode(), np.uint8)}
    for track in kept:
        for name, array in track.points.arrays().items():
            arrays[f"{track.id}/{name}"] = array
    poses = {k: p for t in kept for k in t.points.anchors if (p := tracker.pose(k)) is not None}
    arrays["keyframes"] = np.array(list(poses), np.int64)
    arrays["poses"] = np.array(list(poses.values()), np.float64).reshape(-1, 4, 4)
    arrays["sizes"] = np.array([tracker.size_of(k) for k in poses], np.float64)
    arrays["units"] = np.array([objects.unit_at(k) for k in poses], np.float64)
    arrays["unused"] = np.array(tracker.unused_ids, np.int64)
    arrays |= {f"{_TOLD}{name}": array for name, array in told.arrays().items()}
    file = io.BytesIO()  # not the file itself, which would be written in some hundred pieces
    np.savez(file, **arrays)  # it is kept each second, and packing would take longest
    return file.getvalue(), sum(map(tracker.confirmed, kept))


def write_objects(packed: bytes, folder: Path) -> None:
    """Have the disk hold it in `folder`; a `MapError` says why it cannot."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / NAME, packed, synced=True)
    except OSError as error:
        raise MapError(f"objects cannot be saved in {folder}: {error}") from error


def load_objects(objects: ObjectMap, folder: Path, told: ToldKeyframes) -> int:
    """Make the objects saved in `folder` those of the map, and `told` what had been told; returns
    how many objects.

    What has been found until now goes: its ids may be those of others. A `MapError` says why a file
    cannot be used, and then nothing has changed.
    """
    path = folder / NAME
    try:
        with np.load(path, allow_pickle=False) as archive:
            content = {name: archive[name] for name in archive.files}
        header = json.loads(content["header"].tobytes())
        if header["format"] != FORMAT or header["version"] != VERSION:
            raise MapError(f"{path} is of version {header['version']}, not {VERSION}")
        tracks = [_track(facts, content, objects) for facts in header["objects"]]
        places = list(zip(content["keyframes"].tolist(), content["poses"], strict=True))
        up = None if header["up"] is None else np.array(header["up"], np.float32)
        sizes = dict(zip(content["keyframes"].tolist(), content["sizes"].tolist(), strict=True))
        unused = content["unused"].tolist() if "unused" in content else []
        units = {key: (header["unit"] or 1.0) * size for key, size in sizes.items()}
        if "units" in content:
            units = dict(zip(sizes, content["units"].tolist(), strict=True))
        were_told = {
            name.removeprefix(_TOLD): array
            for name, array in content.items()
            if name.startswith(_TOLD)
        }
    except FileNotFoundError as error:
        raise MapError(f"no objects are saved in {folder}; there is no {NAME}") from error
    except (
        OSError,
        EOFError,
        ValueError,
        KeyError,
        TypeError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise MapError(f"{path} is damaged ({error}); save the objects again") from error
    objects.restore(header["unit"], ScaleState[header["scale"]], up, units)
    objects.tracker.restore(tracks, dict(places), sizes, int(header["next_id"]), unused)
    if were_told:
        told.restore(were_told)
    return sum(map(objects.tracker.confirmed, tracks))


def _facts(track: WorldTrack) -> dict[str, Any]:
    return {
        "id": track.id,
        "lab": track.lab.tolist(),
        "centre": track.centre.tolist(),
        "first_seen_ns": track.first_seen_ns,
        "last_seen_ns": track.last_seen_ns,
        "hits": track.hits,
        "misses": track.misses,
        "extent": track.extent,
        "motion": track.motion,
        "moving": bool(track.moving),
        "empty_views": track.empty_views,
        "votes": dict(track.nouns),
        "tags": sorted(track.tags),
    }


def _track(facts: dict[str, Any], content: dict[str, np.ndarray], objects: ObjectMap) -> WorldTrack:
    points = TrackPoints(objects.config.voxel, objects.config.max_voxels)
    names = ("cam", "anchor", "world", "votes")
    points.restore({name: content[f"{facts['id']}/{name}"] for name in names})
    return WorldTrack(
        id=int(facts["id"]),
        lab=np.array(facts["lab"], np.float32),
        centre=np.array(facts["centre"], np.float32),
        points=points,
        first_feed=0,
        first_seen_ns=int(facts["first_seen_ns"]),
        last_seen_ns=int(facts["last_seen_ns"]),
        hits=int(facts["hits"]),
        misses=int(facts["misses"]),
        extent=float(facts["extent"]),
        motion=float(facts["motion"]),
        moving=bool(facts.get("moving", float(facts["motion"]) >= 1.5)),
        empty_views=int(facts.get("empty_views", 0)),
        nouns=Counter(facts["votes"]),
        tags=set(facts["tags"]),
        was_confirmed=True,  # no other is saved
    )
