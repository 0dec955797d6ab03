# SPDX-License-Identifier: Apache-2.0
"""Packages are downloaded, compared with `hashes.txt`, and only then installed.

Plain standard library: `setup.py` uses it before anything is installed.
"""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Iterable
from pathlib import Path


class UnlistedFile(Exception):
    """A download is none of those that the pins were made with; the message says what to do."""


def listed(text: str) -> set[tuple[str, str]]:
    """Name and SHA-256 of each file in a list as `sha256sum` writes it."""
    pairs = (line.split() for line in text.splitlines() if line and not line.startswith("#"))
    return {(name, digest) for digest, name in pairs}


def check_downloads(downloads: Path, known: set[tuple[str, str]], own: Iterable[Path]) -> list[str]:
    """Compare all files of a folder with those `known`; names of those that the machine's `own`
    folders hold instead, byte for byte. Raises `UnlistedFile` for any other."""
    from_own: list[str] = []
    foreign: list[str] = []
    for path in sorted(downloads.iterdir()):
        digest = sha256(path)
        if (path.name, digest) in known:
            continue
        copies = [folder / path.name for folder in own]
        is_own = any(copy.is_file() and sha256(copy) == digest for copy in copies)
        (from_own if is_own else foreign).append(path.name)
    if foreign:
        raise UnlistedFile(
            f"not installed, since tools/hashes.txt does not list it: {', '.join(foreign)}. After "
            "tools/constraints.txt was changed, run `make lock`. A file that you trust may be "
            "put into a folder of your own that PIP_FIND_LINKS names"
        )
    return from_own


def own_folders(pip_configuration: str) -> list[Path]:
    """Folders of the machine itself that pip looks into (`find-links`), from `pip config list`."""
    folders = []
    for line in pip_configuration.splitlines():
        key, _, value = line.partition("=")
        if key.rpartition(".")[2].strip() == "find-links":
            places = " ".join(shlex.split(value)).replace("\\n", " ").split()
            folders += [Path(place.removeprefix("file://")) for place in places]
    return [folder for folder in dict.fromkeys(folders) if folder.is_dir()]


def sha256(path: Path) -> str:
    """The digest of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
