# SPDX-License-Identifier: Apache-2.0
"""Files that are there as a whole or not at all."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


def write_whole(path: Path, content: bytes, *, synced: bool = False) -> None:
    """Write `content` beside `path` and move it there, so that a crash leaves the old or the new.

    `synced`: the disk has confirmed the bytes; of the name see `sync_folder`. Raises `OSError`, and
    then leaves nothing: on a full disk half a file is in everybody's way.
    """
    beside = path.with_name(f".{path.name}.new")
    try:
        beside.write_bytes(content)
        if synced:
            with beside.open("rb") as stream:
                os.fsync(stream.fileno())
        beside.replace(path)
    except OSError:
        with suppress(OSError):
            beside.unlink(missing_ok=True)
        raise


def replace_text(path: Path, text: str) -> None:
    """Write `text` to `path` so that a power cut, too, leaves the old or the new."""
    write_whole(path, text.encode("utf-8"), synced=True)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Have the disk confirm which files are in `folder`; a new file's name is lost otherwise."""
    with suppress(OSError):  # some file systems cannot, and then do it by themselves
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
