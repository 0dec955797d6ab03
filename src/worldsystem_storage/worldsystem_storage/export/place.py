# SPDX-License-Identifier: Apache-2.0
"""Where an export of one file goes."""

from __future__ import annotations

from pathlib import Path

from worldsystem_storage.errors import StorageError


def output_file(out: Path, name: str) -> Path:
    """`out` itself when it names a file, else `name` in that folder, which is made. A folder that
    is there is one, whatever its name."""
    path = out if out.suffix and not out.is_dir() else out / name
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def check_ending(out: Path, ending: str) -> None:
    """Raises `StorageError` where `out` is a file that ends otherwise: readers go by it."""
    if not out.is_dir() and out.suffix.lower() not in ("", f".{ending}"):
        raise StorageError(f"{out} is to be {ending}: let it end in .{ending}, or name a folder")


def surface_file(out: Path, format: str) -> Path:
    """As `output_file`; raises `StorageError` for a file that ends otherwise."""
    check_ending(out, format)
    return output_file(out, f"mesh.{format}")
