# SPDX-License-Identifier: Apache-2.0
"""Which images a folder means, and when each was taken, as data sets write it down."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from worldsystem_core.errors import SourceError
from worldsystem_core.stamp_text import nanoseconds_told

_log = logging.getLogger(__name__)
_DEPTH = re.compile(r"(?<![a-z])depth(?![a-z])")
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm")
_EUROC = "data.csv"
_PAIR_LISTS = ("rgb.txt", _EUROC)  # TUM: `seconds name`; EuRoC: `nanoseconds,name`
_STAMP_LISTS = ("timestamps.txt", "times.txt")  # KITTI: one a line, in the order of the images
_NS_PER_UNIT = (10**9, 10**6, 10**3, 1)
_YEAR_2000_S, _YEAR_2100_S = 946_684_800, 4_102_444_800
_MOST_NS = 2**63 - 1


@dataclass(frozen=True)
class ImageList:
    """Images in order; `stamps_ns` has one for each, or is empty. `stamped_by` says what gave them.

    `root` is the folder that the camera's file lies in or beside.
    """

    root: Path
    paths: list[Path]
    stamps_ns: list[int]
    stamped_by: str


def list_images(folder: Path) -> ImageList:
    """The images of `folder`, but depth beside colour, or those that a list in it names.

    Stamps come from `rgb.txt`, `data.csv`, `timestamps.txt` or `times.txt` in the folder or beside
    it, else from names that are times since 1970 in seconds down to nanoseconds. Raises
    `SourceError` when there are no images, or when a list does not fit them.
    """
    paths = sorted(_in_colour(folder), key=lambda path: _natural_order(path.name))
    for place in (folder, folder.parent) if paths else (folder,):
        for name in _PAIR_LISTS:
            if (place / name).is_file():
                found = _from_pairs(place / name, set(paths))
                if found.paths:
                    return found
    if not paths:
        raise SourceError(_no_images(folder))
    for place in (folder, folder.parent):
        for name in _STAMP_LISTS:
            if (place / name).is_file():
                return _from_stamps(place / name, paths)
    named_ns = [_epoch_ns(path.stem) for path in paths]
    stamps_ns = [stamp_ns for stamp_ns in named_ns if stamp_ns is not None]
    if len(set(stamps_ns)) < len(paths):
        return ImageList(folder, paths, [], "fps")
    order = sorted(range(len(paths)), key=stamps_ns.__getitem__)
    return ImageList(
        folder, [paths[at] for at in order], [stamps_ns[at] for at in order], "their names"
    )


def _images_in(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES]


def _in_colour(folder: Path) -> list[Path]:
    """Without the depth pictures that 7-Scenes, ScanNet and Replica keep in the same folder."""
    found = _images_in(folder)
    colours = [path for path in found if not _DEPTH.search(path.stem.lower())]
    if not colours or len(colours) == len(found):
        return found
    left_out = len(found) - len(colours)
    _log.warning("%d depth pictures in %s are left out, by their names", left_out, folder)
    return colours


def _from_pairs(path: Path, wanted: set[Path]) -> ImageList:
    """The images of a list of stamps and names; those of `wanted`, or all when that is empty."""
    listed: list[tuple[int, str, Path]] = []
    for number, line in enumerate(_lines(path), start=1):
        stamp, _, name = line.replace(",", " ").partition(" ")
        image = _image_named(path.parent, name.strip())
        if not wanted or image in wanted:
            listed.append((number, stamp, image))
    unit_ns = _unit_ns([stamp for _, stamp, _ in listed], path)
    pairs = sorted((_stamp_ns(stamp, unit_ns, path, number), at) for number, stamp, at in listed)
    missing = sum(not image.is_file() for _, image in pairs)
    if missing:
        raise SourceError(f"{path} names {len(pairs)} images of which {missing} are not there")
    first = pairs[0][1].parent if pairs else path.parent
    return ImageList(first, [image for _, image in pairs], [at for at, _ in pairs], path.name)


def _image_named(place: Path, name: str) -> Path:
    """EuRoC names images without the folder `data` that they are in."""
    direct, in_data = place / name, place / "data" / name
    return in_data if not direct.is_file() and in_data.is_file() else direct


def _from_stamps(path: Path, images: list[Path]) -> ImageList:
    lines = _lines(path)
    if len(lines) != len(images):
        raise SourceError(
            f"{path} has {len(lines)} stamps for {len(images)} images; it needs one for each, or "
            f"another name"
        )
    unit_ns = _unit_ns(lines, path)
    stamps_ns = [_stamp_ns(line, unit_ns, path, at) for at, line in enumerate(lines, start=1)]
    return ImageList(images[0].parent, images, stamps_ns, path.name)


def _lines(path: Path) -> list[str]:
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"{path} cannot be read: {error}") from error
    return [line.strip() for line in text.splitlines() if line.strip() and line[0] != "#"]


def _unit_ns(stamps: Sequence[str], path: Path) -> int:
    """What whole numbers of a list count in; 0: seconds or nanoseconds, as each is written.

    EuRoC counts nanoseconds, also from zero. Milliseconds and microseconds are told by being times
    since 1970, all of them.
    """
    if not all(re.fullmatch("[0-9]{1,19}", stamp) for stamp in stamps):
        return 0
    if path.name == _EUROC:
        return 1
    for unit_ns in (10**6, 10**3):
        if all(_is_of_this_century(int(stamp) * unit_ns) for stamp in stamps):
            return unit_ns
    return 0


def _stamp_ns(text: str, unit_ns: int, path: Path, number: int) -> int:
    """A stamp in a list; raises `SourceError` for what is no time that 64 bits take."""
    try:
        stamp_ns = int(text) * unit_ns if unit_ns else nanoseconds_told(text)
        if 0 <= stamp_ns <= _MOST_NS:
            return stamp_ns
    except ValueError:
        pass
    raise SourceError(f"{path}, entry {number}: '{text[:40]}' is no time in s or ns")


def _is_of_this_century(stamp_ns: int) -> bool:
    return _YEAR_2000_S * 10**9 <= stamp_ns < _YEAR_2100_S * 10**9


def _epoch_ns(stem: str) -> int | None:
    """The time since 1970 that a file's name is, if it is one between 2000 and 2100."""
    if not re.fullmatch(r"\d{9,19}(\.\d+)?", stem):
        return None
    for ns_per_unit in _NS_PER_UNIT:
        stamp_ns = int(Decimal(stem) * ns_per_unit)
        if _is_of_this_century(stamp_ns):
            return stamp_ns
    return None


def _natural_order(name: str) -> list[tuple[int, str]]:
    parts = re.findall(r"\d+|\D+", name.lower())
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]


def _no_images(folder: Path) -> str:
    below = sorted(child.name for child in folder.iterdir() if child.is_dir() and _images_in(child))
    hint = f"; there are some in its folders {', '.join(below[:8])}" if below else ""
    return f"{folder} holds no images ({' '.join(SUFFIXES)}){hint}; give the folder they are in"
