# SPDX-License-Identifier: Apache-2.0
"""Write `tools/hashes.txt`: the SHA-256 of each file that a pin of `constraints.txt` can mean.

Run it after a pin has changed (`make lock`; needs the network). The Python package index tells the
hashes of all files of a version, for every kind of machine; kept are source archives, and wheels
that a Linux with glibc and one of our Pythons takes.
"""

from __future__ import annotations

import json
import sys
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from packaging.tags import Tag
from packaging.utils import (
    InvalidSdistFilename,
    InvalidWheelFilename,
    parse_sdist_filename,
    parse_wheel_filename,
)
from packaging.version import Version

TOOLS = Path(__file__).resolve().parent
INDEX = "https://pypi.org/simple"
NEWEST_PYTHON = 12
NOT_FOUND = 404
MACHINES = ("x86_64", "aarch64")
HEAD = (
    "# Made by tools/lock.py: the files that the pins of constraints.txt may mean; as sha256sum.\n"
)


def main() -> int:
    """Ask for every pin and write the list; 1 if a pin has no file."""
    pins = pinned((TOOLS / "constraints.txt").read_text())
    with ThreadPoolExecutor(8) as pool:
        found = dict(zip(pins, pool.map(files_of, pins.items()), strict=True))
    missing = [f"{name}=={pins[name]}" for name, files in found.items() if not files]
    if missing:
        print(f"lock: the index has no file for {', '.join(missing)}", file=sys.stderr)
        return 1
    lines = sorted(f"{digest}  {file}\n" for files in found.values() for file, digest in files)
    lines.sort(key=lambda line: line.split()[1].lower())
    (TOOLS / "hashes.txt").write_text(HEAD + "".join(lines))
    print(f"lock: {len(lines)} files of {len(pins)} packages")
    return 0


def pinned(text: str) -> dict[str, str]:
    """The version of each package that a constraints file pins."""
    lines = (line.split("#")[0].split(";")[0].strip() for line in text.splitlines())
    return {name: version for name, _, version in (line.partition("==") for line in lines) if name}


def files_of(pin: tuple[str, str]) -> list[tuple[str, str]]:
    """Name and SHA-256 of the files of one version that we may be given (PEP 691)."""
    name, version = pin
    request = urllib.request.Request(
        f"{INDEX}/{name}/", headers={"Accept": "application/vnd.pypi.simple.v1+json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            entries: list[dict[str, Any]] = json.load(answer)["files"]
    except urllib.error.HTTPError as error:
        if error.code != NOT_FOUND:
            raise
        return []
    wanted = Version(version)
    return [
        (entry["filename"], entry["hashes"]["sha256"])
        for entry in entries
        if is_usable(entry["filename"], wanted)
    ]


def is_usable(filename: str, version: Version) -> bool:
    """Whether pip may choose this file for `version` on a machine that we support."""
    try:
        if not filename.endswith(".whl"):
            return parse_sdist_filename(filename)[1] == version
        _, found, _, tags = parse_wheel_filename(filename)
    except (InvalidSdistFilename, InvalidWheelFilename):  # from long ago
        return False
    return found == version and any(_runs_here(tag) for tag in tags)


def _runs_here(tag: Tag) -> bool:
    machine = tag.platform.startswith(("manylinux", "linux")) and tag.platform.endswith(MACHINES)
    if tag.interpreter.startswith("py"):
        return tag.interpreter.startswith("py3") and (machine or tag.platform == "any")
    minor = tag.interpreter.removeprefix("cp3")
    if not minor.isdigit() or tag.abi not in ("abi3", tag.interpreter, "none"):
        return False
    oldest = 2 if tag.abi == "abi3" else 11
    return oldest <= int(minor) <= NEWEST_PYTHON and (machine or tag.platform == "any")


if __name__ == "__main__":
    sys.exit(main())
