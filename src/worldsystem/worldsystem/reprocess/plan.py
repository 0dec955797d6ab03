# SPDX-License-Identifier: Apache-2.0
"""What is to be run again: one task for each recording, and which of them are done already."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from worldsystem.replay_command import recording_in
from worldsystem_core.errors import WorldSystemError

RESULT_FILE = "reprocess.json"
"""Written last into a result's folder: whoever finds it finds a whole result."""
_PART = ".part-"


class ReprocessError(WorldSystemError):
    """The runs cannot be processed again as asked; the message says what to do."""


@dataclass(frozen=True)
class Settings:
    """What all tasks share: words for `worldsystem run`, and how long one may take."""

    words: tuple[str, ...] = ()
    timeout_s: float = 86400.0

    @property
    def digest(self) -> str:
        """Six letters that differ for other words."""
        return hashlib.sha256("\0".join(self.words).encode()).hexdigest()[:6]


@dataclass(frozen=True)
class Task:
    """One recording, what becomes of it, and with which settings."""

    name: str
    recording: str
    truth: str
    out: str
    settings: Settings

    @property
    def folder(self) -> Path:
        """Where the result lies once it is whole."""
        return Path(self.out) / self.name

    @property
    def log_file(self) -> Path:
        """What the run printed."""
        return Path(self.out) / "logs" / f"{self.name}.log"

    def part(self, attempt: str) -> Path:
        """Where an attempt works until its result is whole."""
        return Path(self.out) / f"{_PART}{attempt}-{self.name}"


def plan(runs: Iterable[Path], out: Path, settings: Settings) -> list[Task]:
    """A task for each run's folder, bag or video, in this order; names are unique."""
    tasks: list[Task] = []
    for run in runs:
        if not run.exists():
            raise ReprocessError(f"{run} does not exist; name runs' folders, bags or videos")
        taken = {task.name for task in tasks}
        truth = run / "truth"
        tasks.append(
            Task(
                name=_free_name(_name_of(run), taken),
                recording=str(_recording(run).resolve()),
                truth=str(truth.resolve()) if truth.is_dir() else "",
                out=str(out.resolve()),
                settings=settings,
            )
        )
    if not tasks:
        raise ReprocessError("no runs were named; see `worldsystem runs list`")
    return tasks


def finished(task: Task) -> bool:
    """Whether its result is there already; raises when that is one of something else."""
    file = task.folder / RESULT_FILE
    if not has_result(task):
        return False
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ReprocessError(f"{file} cannot be read ({error}); use --again") from error
    if found != task_record(task):
        raise ReprocessError(
            f"{task.folder} holds the result of another recording or of other settings; "
            "choose another --out, or --again to replace it"
        )
    return True


def task_record(task: Task) -> dict[str, object]:
    """What `RESULT_FILE` says: of what the result was made."""
    words = list(task.settings.words)
    return {"recording": task.recording, "truth": task.truth, "words": words}


def has_result(task: Task) -> bool:
    """Whether a result is there, of whatever it was made; raises when something else is."""
    there = (task.folder / RESULT_FILE).is_file()
    if task.folder.exists() and not there:
        raise ReprocessError(
            f"{task.folder} is in the way and no result of `reprocess`; choose another --out"
        )
    return there


def put_in_place(task: Task, part: Path) -> None:
    """Make a whole result of the attempt that worked in `part`, also in place of an earlier one.

    That one is moved aside first, since a folder cannot be replaced, nor removed, at once.
    """
    (part / RESULT_FILE).write_text(json.dumps(task_record(task), indent=1) + "\n")
    earlier = part.with_name(f"{part.name}.earlier")
    if has_result(task):
        os.replace(task.folder, earlier)
    try:
        os.replace(part, task.folder)
    except OSError:
        if earlier.exists():
            os.replace(earlier, task.folder)
        raise
    shutil.rmtree(earlier, ignore_errors=True)


def remove_parts(out: Path) -> None:
    """Remove what interrupted attempts left; only while no other `reprocess` works there."""
    for part in out.glob(f"{_PART}*"):
        shutil.rmtree(part, ignore_errors=True)


def task_from_json(text: str) -> Task:
    """The inverse of `task_to_json`."""
    given = json.loads(text)
    shared = given.pop("settings")
    return Task(**given, settings=Settings(tuple(shared["words"]), shared["timeout_s"]))


def task_to_json(task: Task) -> str:
    """As text, for another machine."""
    return json.dumps(asdict(task))


def _recording(run: Path) -> Path:
    """The bag of a run's folder, or its only video; any other path as it is."""
    found = recording_in(run)
    if found != run or not (run / "video").is_dir():
        return found
    videos = sorted((run / "video").glob("*/video*.mp4"))
    if not videos:
        raise ReprocessError(f"{run} has neither a bag nor a video; name the recording itself")
    if len(videos) > 1:
        names = ", ".join(str(video.relative_to(run)) for video in videos)
        raise ReprocessError(
            f"{run} has no bag, and {len(videos)} videos, each a part of it: {names}; name the one "
            "that is to be run again"
        )
    return videos[0]


def _name_of(run: Path) -> str:
    whole = run.resolve()
    named = whole.parent if whole.name == "bag" else whole
    return named.name if named.is_dir() else named.stem


def _free_name(name: str, taken: set[str]) -> str:
    free, number = name, 1
    while free in taken:
        number += 1
        free = f"{name}_{number}"
    return free
