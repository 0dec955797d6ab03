# SPDX-License-Identifier: Apache-2.0
"""A map as a folder (docs/map_format.md): a manifest that names every file with its checksum.

Files are never changed once the manifest names them: a save writes new ones, then puts a new
manifest in the place of the old in one step. A crash at any moment leaves the old map or the new.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from worldsystem_core.errors import MapError
from worldsystem_core.whole_file import write_whole
from worldsystem_slam3r.maps.claim import claimed

FORMAT = "worldsystem-map"
VERSION = 1
MANIFEST = "map.json"
KEYFRAMES = "keyframes"
BESIDE = ("objects.npz",)
"""What others keep in the folder, perhaps before the first map: it is neither refused nor swept."""
_WRITING = threading.Lock()
"""One save sweeps what the manifest of another, half written, is about to name."""
_WRITTEN: dict[Path, int] = {}
"""Of this process: the generation of each map that it wrote last."""


Part = tuple[str, Callable[[], bytes] | None]
"""A file's name below the folder, and what gives its bytes; None: kept as it is, if it is there."""


def is_map(folder: Path) -> bool:
    """Whether a folder holds a saved map; a `MapError` where it cannot be reached."""
    try:
        return (folder / MANIFEST).is_file()
    except OSError as error:  # a name that is too long, or a folder that is closed to us
        raise MapError(f"{folder}: {error.strerror}; name a folder that can be read") from error


@dataclass(frozen=True)
class FileEntry:
    """One file: its name below the folder, its size and its SHA-256."""

    name: str
    size: int
    sha256: str

    @staticmethod
    def of(name: str, data: bytes) -> FileEntry:
        """The entry of these bytes."""
        return FileEntry(name, len(data), hashlib.sha256(data).hexdigest())


@dataclass(frozen=True)
class Manifest:
    """What `map.json` says; `facts` are plain values about the map as a whole."""

    generation: int
    saved_ns: int
    facts: Mapping[str, object]
    files: Mapping[str, FileEntry] = field(default_factory=dict)

    def text(self) -> str:
        """As JSON, with a checksum over itself."""
        body = {
            "format": FORMAT,
            "version": VERSION,
            "generation": self.generation,
            "saved_ns": self.saved_ns,
            **self.facts,
            "files": {
                entry.name: {"bytes": entry.size, "sha256": entry.sha256}
                for entry in self.files.values()
            },
        }
        return json.dumps(body | {"checksum": _checksum(body)}, indent=1)


def read_manifest(folder: Path) -> Manifest:
    """Read and check `map.json`; whatever is wrong is a `MapError` that says what to do."""
    path = folder / MANIFEST
    if not is_map(folder):
        raise MapError(f"{folder} is not a map: it has no {MANIFEST}; name the folder of a map")
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
        claimed = body.pop("checksum")
        kind, version = body.pop("format"), body.pop("version")
    except (ValueError, LookupError, AttributeError, TypeError, RecursionError, OSError) as error:
        raise _damaged(path, f"it is no JSON of a map ({error})") from error
    if kind != FORMAT:
        raise MapError(f"{path} is '{kind}', not '{FORMAT}'; name the folder of a map")
    if version != VERSION:
        raise MapError(
            f"{path} has version {version}, this program reads {VERSION}; "
            "use the WorldSystem that wrote it, or map the place anew"
        )
    if claimed != _checksum({"format": kind, "version": version, **body}):
        raise _damaged(path, "its checksum does not fit its text")
    try:
        files = {
            name: FileEntry(name, int(entry["bytes"]), str(entry["sha256"]))
            for name, entry in body.pop("files").items()
        }
        return Manifest(int(body.pop("generation")), int(body.pop("saved_ns")), body, files)
    except (ValueError, LookupError, AttributeError, TypeError, OverflowError) as error:
        raise _damaged(path, f"it does not say what a map's says ({error!r})") from error


def generation_of(folder: Path) -> int:
    """Of the map that lies there; 0 where none does, or one whose manifest is damaged."""
    try:
        return read_manifest(folder).generation if is_map(folder) else 0
    except MapError:
        return 0


def read_file(folder: Path, entry: FileEntry) -> bytes:
    """The bytes of one file, checked against the manifest."""
    path = folder / entry.name
    if Path(entry.name).is_absolute() or ".." in Path(entry.name).parts:
        raise _damaged(folder / MANIFEST, f"it names a file outside the map, {entry.name}")
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):  # a device, or a pipe, may never end
            raise _damaged(path, "it is no file")
        if found.st_size != entry.size:
            raise _damaged(path, f"it has {found.st_size} bytes instead of {entry.size}")
        data = path.read_bytes()
    except OSError as error:
        raise _damaged(path, f"it cannot be read ({error})") from error
    if hashlib.sha256(data).hexdigest() != entry.sha256:
        raise _damaged(path, "its content does not fit its checksum")
    return data


def write_map(
    folder: Path,
    facts: Mapping[str, object],
    contents: Iterable[Part],
    *,
    saved_ns: int,
    begun_from: int | None = None,
) -> Manifest:
    """Write a new generation; contents whose name the old manifest has are not written again.

    What is no content any more is removed. A folder with other things in it, and no map, is
    refused, and so is one that another process keeps saved, or has saved since the generation that
    the map was `begun_from` (None: whatever lies there). One save at a time: another one waits.
    """
    try:
        with _WRITING:
            before = _before(folder)
            if before is not None and begun_from is not None:
                _check_is_own(folder, before, begun_from)
            manifest = _written(folder, before, facts, contents, saved_ns)
            _WRITTEN[folder.resolve()] = manifest.generation
            return manifest
    except OSError as error:
        raise MapError(
            f"{folder} cannot be written ({error}); free space, or name a folder that can be"
        ) from error


def _check_is_own(folder: Path, before: Manifest, begun_from: int) -> None:
    if before.generation not in (begun_from, _WRITTEN.get(folder.resolve())):
        raise MapError(
            f"{folder} holds a map that another run saved after this one had begun; save this one "
            "elsewhere (`worldsystem map save FOLDER`)"
        )


def _written(
    folder: Path,
    before: Manifest | None,
    facts: Mapping[str, object],
    contents: Iterable[Part],
    saved_ns: int,
) -> Manifest:
    (folder / KEYFRAMES).mkdir(parents=True, exist_ok=True)
    with claimed(folder):
        return _next_generation(folder, before, facts, contents, saved_ns)


def _next_generation(
    folder: Path,
    before: Manifest | None,
    facts: Mapping[str, object],
    contents: Iterable[Part],
    saved_ns: int,
) -> Manifest:
    files = {}
    for name, content in contents:
        known = None if before is None else before.files.get(name)
        if known is not None and (folder / name).is_file():
            files[name] = known
            continue
        if content is None:
            continue
        data = content()
        files[name] = FileEntry.of(name, data)
        write_whole(folder / name, data, synced=True)
    generation = 1 if before is None else before.generation + 1
    manifest = Manifest(generation, saved_ns, facts, files)
    _sync_folder(folder / KEYFRAMES)
    write_whole(folder / MANIFEST, manifest.text().encode(), synced=True)
    _sync_folder(folder)
    _sweep(folder, manifest)
    return manifest


def _before(folder: Path) -> Manifest | None:
    if not folder.exists():
        return None
    if (folder / MANIFEST).is_file():
        return read_manifest(folder)
    others = [path.name for path in folder.iterdir() if path.name != KEYFRAMES]
    if [name for name in others if not name.startswith((".", "graph-", *BESIDE))]:
        raise MapError(f"{folder} holds other things and no map; choose an empty or new folder")
    return None


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _sweep(folder: Path, manifest: Manifest) -> None:
    """Remove what earlier generations and interrupted saves left."""
    for path in [*folder.glob("graph-*"), *folder.glob(f"{KEYFRAMES}/*"), *folder.glob(".*.new")]:
        name = str(path.relative_to(folder))
        beside = name.removeprefix(".").removesuffix(".new") in BESIDE
        if path.is_file() and not beside and name not in manifest.files:
            path.unlink(missing_ok=True)


def _checksum(body: Mapping[str, object]) -> str:
    canonical = json.dumps(body, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def _damaged(path: Path, why: str) -> MapError:
    return MapError(f"{path} is damaged: {why}; restore it from a copy, or map the place anew")
