# SPDX-License-Identifier: Apache-2.0
"""What a process leaves to the one that comes after it: which saved map that goes on in.

A reset ends a map. It stays on the disk until the new one is saved for the first time, so that it
can still be copied or loaded; but nobody who begins in its folder goes on in it: a mark beside its
manifest says so, of this map in this place. A later save and a copy elsewhere count as not ended.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
from contextlib import suppress
from pathlib import Path

from worldsystem_core.reconstruction import ScaleState
from worldsystem_slam3r.maps.folder import KEYFRAMES, MANIFEST, is_map, read_manifest

log = logging.getLogger(__name__)

MARK = ".ended"
_OF_KEYFRAME = re.compile(rf"{KEYFRAMES}/(\d+)-")


def end_map(folder: Path) -> None:
    """Mark the map that lies there now, if one does, as ended."""
    if not is_map(folder):
        return
    try:
        (folder / MARK).write_bytes(_mark(folder))
    except OSError as error:
        log.warning(
            "the map in %s has ended, but cannot be marked so (%s): who begins there before the "
            "new one is saved goes on in it",
            folder,
            error,
        )


def is_ended(folder: Path) -> bool:
    """Whether the map that lies there was ended, so that who begins there makes a new one."""
    try:
        return (folder / MARK).read_bytes() == _mark(folder)
    except OSError:
        return False


def take_up_again(folder: Path) -> None:
    """The map that lies there was loaded: it has not ended after all."""
    with suppress(OSError):  # from a folder that cannot be written too
        (folder / MARK).unlink(missing_ok=True)


def kept_keyframes(place: str) -> frozenset[int]:
    """Ids of the keyframes that a back-end with `map` = `place` begins with; none where it makes a
    new map. A damaged manifest is a `MapError`."""
    folder = Path(place)
    if not place or not is_map(folder) or is_ended(folder):
        return frozenset()
    found = map(_OF_KEYFRAME.match, read_manifest(folder).files)
    return frozenset(int(each[1]) for each in found if each)


def kept_scale(place: str) -> ScaleState:
    """What one unit of length is in the map that lies there; a damaged manifest is a `MapError`."""
    metric = read_manifest(Path(place)).facts.get("root") == "map"
    return ScaleState.METRIC if metric else ScaleState.SCENE


def _mark(folder: Path) -> bytes:
    digest = hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest()
    return digest.encode() + b" " + os.fsencode(folder.resolve())
