# SPDX-License-Identifier: Apache-2.0
"""What is known of each run in a folder."""

from __future__ import annotations

import json
import logging
import os
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from worldsystem.run_folder import is_in_use
from worldsystem_core.errors import WorldSystemError
from worldsystem_core.shown_url import without_secrets
from worldsystem_storage.bag_file import is_being_recorded

log = logging.getLogger(__name__)

SUMMARY_FILE = "summary.json"
_BAG = "bag"
_PICTURES = ("pictures/mesh_a.png", "pictures/trajectory.png")


class NoSuchRun(WorldSystemError):
    """There is no run of that name."""


@dataclass(frozen=True)
class Run:
    """One run's folder; `figures` are its results by id, where they are known.

    A run that was killed has no summary: it is `unfinished`, and its bag may need `bag recover`.
    One that is `going_on` is being recorded at this moment, or has not written its report yet.
    """

    folder: Path
    started: datetime
    duration_s: float
    source: str
    backend: str
    commit: str
    keyframes: int
    triangles: int
    figures: dict[str, float]
    dropped: dict[str, int]
    size_bytes: int
    unfinished: bool = False
    going_on: bool = False

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def picture(self) -> str:
        """A thumbnail's path within the run's folder; empty when there is none."""
        stills = sorted(self.folder.glob("video/*/frame_*.jpg"))
        found = [self.folder / name for name in _PICTURES if (self.folder / name).is_file()]
        return str((found or stills)[0].relative_to(self.folder)) if found or stills else ""


def read_runs(base: Path) -> list[Run]:
    """Every run in `base`, newest first; folders that are none are left out."""
    if not base.is_dir():
        return []
    found = [read_run(folder) for folder in base.iterdir() if _is_run(folder)]
    return sorted(found, key=lambda run: (run.started, run.name), reverse=True)


def find_run(base: Path, name: str) -> Run:
    """The run of that name (or path), or the newest for `latest`; raises `NoSuchRun`."""
    runs = read_runs(base)
    if name == "latest" and runs:
        return runs[0]
    for folder in (Path(name), base / name):
        if _is_run(folder):
            return read_run(folder)
    known = ", ".join(run.name for run in runs[:5]) or "none"
    raise NoSuchRun(f"no run '{name}' in {base}; the newest: {known}")


def read_run(folder: Path) -> Run:
    """What is known of the run in `folder`, also of one that was killed."""
    summary = _summary(folder)
    started_ns = int(summary.get("started_ns", 0)) or folder.stat().st_mtime_ns
    return Run(
        folder=folder,
        started=datetime.fromtimestamp(started_ns / 1e9, UTC),
        duration_s=float(summary.get("duration_s") or 0.0),
        source=without_secrets(str(summary.get("source", ""))),
        backend=str(summary.get("backend", "")),
        commit=str(summary.get("commit", "")),
        keyframes=int(summary.get("keyframes") or 0),
        triangles=int(summary.get("triangles") or 0),
        figures=_figures(summary),
        dropped=_dropped(summary),
        size_bytes=_size_bytes(folder),
        unfinished=not summary,
        going_on=is_in_use(folder) or any(map(is_being_recorded, folder.glob("*/*.mcap"))),
    )


def _size_bytes(folder: Path) -> int:
    """Of all files below; those of a run that goes on come and go meanwhile."""
    size_bytes = 0
    for place, _, names in os.walk(folder):  # which passes over folders that are gone
        for name in names:
            with suppress(OSError):
                path = Path(place, name)
                size_bytes += path.stat().st_size if path.is_file() else 0
    return size_bytes


def _is_run(folder: Path) -> bool:
    return folder.is_dir() and ((folder / SUMMARY_FILE).is_file() or (folder / _BAG).is_dir())


def _summary(folder: Path) -> dict[str, Any]:  # JSON of the report
    path = folder / SUMMARY_FILE
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        log.warning("%s cannot be read: %s", path, error)
        return {}
    return content if isinstance(content, dict) else {}


def _figures(summary: dict[str, Any]) -> dict[str, float]:
    return {
        str(result["id"]).partition(".")[2]: float(result["value"])
        for result in summary.get("results", ())
        if result.get("value") is not None
    }


def _dropped(summary: dict[str, Any]) -> dict[str, int]:
    return {
        f"{stage['stage']}.{reason}": int(count)
        for stage in summary.get("ledger", ())
        for reason, count in stage.get("dropped", {}).items()
        if count
    }
