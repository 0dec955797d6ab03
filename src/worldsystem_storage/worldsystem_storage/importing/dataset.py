# SPDX-License-Identifier: Apache-2.0
"""What a data set holds, whatever its layout on disk."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from worldsystem_core.frames import Camera
from worldsystem_core.stamp_text import nanoseconds_told
from worldsystem_core.telemetry import ImuSample
from worldsystem_core.trajectory import StampedPoses
from worldsystem_storage.errors import StorageError


@dataclass(frozen=True)
class DatasetPicture:
    """One picture as a file, when it was taken, and its depth picture where there is one."""

    stamp_ns: int
    path: Path
    depth: Path | None = None


@dataclass(frozen=True, eq=False)
class Dataset:
    """Pictures in time order, their camera, and what else was measured.

    `truth` is `world_from_cam`. `depth_unit_m` is the length of one count of the depth pictures.
    """

    name: str
    pictures: list[DatasetPicture]
    camera: Camera | None = None
    truth: StampedPoses | None = None
    imu: list[ImuSample] = field(default_factory=list)
    depth_unit_m: float = 0.001


@dataclass(frozen=True)
class Imported:
    """Messages by topic, and in words what could not be read; empty when all could."""

    messages: dict[str, int]
    problem: str = ""


@dataclass(frozen=True)
class Layout:
    """How one family of data sets lies on disk."""

    name: str
    fits: Callable[[Path], bool]
    reader: Callable[[Path], Dataset]
    meaning: str

    def read(self, folder: Path) -> Dataset:
        """What lies in `folder`; raises `StorageError` where a file of it is damaged."""
        try:
            return self.reader(in_full(folder))
        except (ValueError, LookupError, TypeError, ArithmeticError) as error:
            raise StorageError(f"{folder} cannot be read as {self.meaning}: {error!r}") from error


def in_full(folder: Path) -> Path:
    """`folder` with its own name and those above it: cameras and true poses are found by them."""
    return folder.resolve() if ".." in folder.parts else folder.absolute()


def numbers(
    path: Path, columns: int, *, delimiter: str | None = None
) -> Float64[np.ndarray, "n c"]:
    """The numbers of a text file of so many columns; `#` begins a comment.

    Raises `StorageError` naming the file when there are none or a row is of another length.
    """
    try:
        rows = np.loadtxt(path, dtype=np.float64, delimiter=delimiter, ndmin=2, comments="#")
    except (OSError, ValueError) as error:
        raise StorageError(f"{path} cannot be read as numbers: {error}") from error
    if not rows.size or rows.shape[1] < columns:
        raise StorageError(f"{path} must hold rows of {columns} numbers")
    return np.asarray(rows)


def stamps_and_words(
    path: Path, *, delimiter: str | None = None, whole_ns: bool = False
) -> list[tuple[int, list[str]]]:
    """Rows of a time stamp and words, by the stamps; these are read as `nanoseconds` does."""
    rows = []
    for line in path.read_text().splitlines():
        words = [word.strip() for word in line.split(delimiter)]
        if len(words) >= 2 and not line.lstrip().startswith("#"):
            rows.append((nanoseconds(words[0], path, whole_ns=whole_ns), words[1:]))
    return sorted(rows)


def nanoseconds(text: str, path: Path, *, whole_ns: bool = False) -> int:
    """A stamp in `path`, of seconds or nanoseconds, with or without an exponent, to the nanosecond.

    With `whole_ns` all whole numbers are nanoseconds, also small ones, as of a clock that began at
    zero. Raises `StorageError` naming the file when it is none, or beyond 64 bits.
    """
    if whole_ns and re.fullmatch("[0-9]{1,12}", text):  # longer ones are taken so anyway
        return int(text)
    try:
        return nanoseconds_told(text)
    except ValueError as error:
        raise StorageError(f"{path}: {error}") from error
