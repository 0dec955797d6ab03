# SPDX-License-Identifier: Apache-2.0
"""What a path is, and how it becomes a bag of ours."""

from __future__ import annotations

from pathlib import Path

from worldsystem_storage.errors import StorageError
from worldsystem_storage.importing.layouts import LAYOUTS
from worldsystem_storage.importing.write import copy_bag, write_dataset

_BAGS = (".bag", ".mcap", ".db3")


def import_path(path: Path, out: Path) -> dict[str, int]:
    """Write what lies at `path` to a new bag `out`; messages by topic.

    Data sets are known by their files, bags by their ending or `metadata.yaml`. Raises
    `StorageError` when it is nothing known, or `out` exists.
    """
    path = Path(path)
    if path.is_dir():
        for layout in LAYOUTS:
            if layout.fits(path):
                return write_dataset(layout.read(path), out)
    if path.suffix in _BAGS or (path / "metadata.yaml").is_file():
        return copy_bag(path, out)
    known = ", ".join(layout.meaning for layout in LAYOUTS)
    raise StorageError(
        f"{path} is nothing that can be imported; known: {known}, and bags of ROS 1 and 2. Videos "
        "and folders of pictures need no import: `worldsystem run` takes them"
    )
