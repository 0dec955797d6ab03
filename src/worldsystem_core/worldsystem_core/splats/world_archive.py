# SPDX-License-Identifier: Apache-2.0
"""A world of splats in a folder, for the process that comes after one that was killed.

`chunk_N.npz` has a chunk's splats in its own frame and is written when they change; `world.npz` has
where all chunks lie, what hangs on what, and which keyframes were told. Each is written whole and
moved over the old one: what a process has written outlives it, not a loss of power.
"""

from __future__ import annotations

import io
import logging
import os
import zipfile
from contextlib import suppress
from dataclasses import fields
from pathlib import Path

import numpy as np

from worldsystem_core.errors import WorldSystemError
from worldsystem_core.reconstruction import RemovedKeyframes, ScaleState
from worldsystem_core.splats.gaussians import Gaussians
from worldsystem_core.splats.world import SplatWorld
from worldsystem_core.told_keyframes import ToldKeyframes

log = logging.getLogger(__name__)

CHUNKS_AT_ONCE = 4
PERIOD_S = 1.0
_CHUNK, _WORLD, _SUFFIX, _NEW = "chunk_", "world", ".npz", ".new"
_TOLD = "told/"
_COLUMNS = tuple(field.name for field in fields(Gaussians))


class ArchiveFailed(WorldSystemError):
    """The folder cannot be written to."""


class WorldArchive:
    """Follows a world and keeps it in `folder`; what was there before stays only with `restore`.

    Where nothing can be written any more all of it goes, with a warning: what is old would be
    wrong.
    """

    def __init__(self, folder: Path, *, restore: bool) -> None:
        self._folder = folder
        self._written: dict[int, Gaussians] = {}
        self._turns: dict[int, int] = {}
        self._turn = 0
        self._world_s = -PERIOD_S
        self._failed = False
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if not restore:
                self._remove_all()
        except OSError as error:
            raise ArchiveFailed(f"cannot write to {folder}: {error}; set archive_dir") from error

    def save(self, world: SplatWorld, told: ToldKeyframes, scale: ScaleState, now_s: float) -> None:
        """Write some of the chunks that have changed, those first that were longest not written,
        and about every second where all lie; all that have where some went into others."""
        if self._failed:
            return
        changed = [c for c in world.chunks.values() if self._written.get(c.id) is not c.gaussians]
        went_into_others = bool(self._written.keys() - world.chunks.keys())
        most = len(changed) if went_into_others else CHUNKS_AT_ONCE
        changed.sort(key=lambda chunk: self._turns.get(chunk.id, 0))
        try:
            for chunk in changed[:most]:
                self._turn += 1
                self._turns[chunk.id] = self._turn
                splats = {name: getattr(chunk.gaussians, name) for name in _COLUMNS}
                self._write(f"{_CHUNK}{chunk.id}", splats)
                self._written[chunk.id] = chunk.gaussians
            if changed or now_s - self._world_s >= PERIOD_S:
                self._world_s = now_s
                self._write(_WORLD, _state(world, told, scale))
                for gone in self._written.keys() - world.chunks.keys():
                    del self._written[gone]
                    self._turns.pop(gone, None)
                    self._path(f"{_CHUNK}{gone}").unlink(missing_ok=True)
        except OSError as error:
            log.warning("after a crash the splats would have to be made anew: %s", error)
            self._failed = True
            with suppress(OSError):  # nor may anything be removed on a disk that is only read
                self._remove_all()

    def restore(self, world: SplatWorld, told: ToldKeyframes) -> ScaleState:
        """Give `world` and `told`, which are new, what the folder has; returns the root's unit.

        Keyframes whose splats are missing or damaged were not told; without a `world.npz` that is
        whole none was.
        """
        state = self._read(_WORLD)
        if not state:
            return ScaleState.SCENE
        read = {n: self._read(f"{_CHUNK}{n}") for n in state["chunks"].tolist()}
        found = {number: Gaussians(**splats) for number, splats in read.items() if splats}
        world.begin_again(state, found)
        names = [name for name in state if name.startswith(_TOLD)]
        told.restore({name.removeprefix(_TOLD): state[name] for name in names})
        told.note(RemovedKeyframes(tuple(read.keys() - found.keys())))
        self._written = dict(found)
        return ScaleState(int(state["scale"]))

    def clear(self) -> None:
        """Nothing of what is there is of use."""
        self._written.clear()
        self._remove_all()

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}{_SUFFIX}"

    def _write(self, name: str, arrays: dict[str, np.ndarray]) -> None:
        new, packed = self._folder / f"{name}{_NEW}", io.BytesIO()
        np.savez(packed, **arrays)  # type: ignore[arg-type]  # mypy: allow_pickle is not in it
        new.write_bytes(packed.getbuffer())
        os.replace(new, self._path(name))

    def _read(self, name: str) -> dict[str, np.ndarray]:
        """Empty where there is none, or none that is whole."""
        path = self._path(name)
        try:
            with np.load(path, allow_pickle=False) as archive:
                return {key: archive[key] for key in archive.files}
        except FileNotFoundError:
            return {}
        except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
            log.warning("%s is left out: %s", path, error)
            return {}

    def _remove_all(self) -> None:
        for path in [*self._folder.glob(f"*{_SUFFIX}"), *self._folder.glob(f"*{_NEW}")]:
            path.unlink(missing_ok=True)


def _state(world: SplatWorld, told: ToldKeyframes, scale: ScaleState) -> dict[str, np.ndarray]:
    known = {f"{_TOLD}{name}": array for name, array in told.arrays().items()}
    return world.state() | known | {"scale": np.array(scale.value)}
