# SPDX-License-Identifier: Apache-2.0
"""What a path is, and how it becomes a bag of ours."""

from __future__ import annotations

from pathlib import Path

from worldsystem_storage.bag_folder import holds_bag
from worldsystem_storage.errors import StorageError
from worldsystem_storage.importing.bags import copy_bag
from worldsystem_storage.importing.dataset import Imported, Layout
from worldsystem_storage.importing.layouts import LAYOUTS
from worldsystem_storage.importing.write import write_dataset

_BAGS = (".bag", ".mcap", ".db3")


def import_path(path: Path, out: Path) -> Imported:
    """Write what lies at `path` to a new bag `out`.

    Data sets are known by their files, bags by their ending, `metadata.yaml`, or the MCAP files of
    a folder, as a crash leaves it. Raises `StorageError` when it is nothing known, or `out` exists.
    """
    path = Path(path)
    layout = _layout_of(path)
    if layout is not None:
        return Imported(write_dataset(layout.read(path), out))
    if _is_bag(path):
        return copy_bag(path, out)
    known = ", ".join(layout.meaning for layout in LAYOUTS)
    raise StorageError(f"{path} is no data set or bag; known: {known}, and bags of ROS 1 and 2")


def is_known(path: Path) -> bool:
    """Whether `import_path` takes what lies at `path`: a data set or a bag."""
    return _layout_of(path) is not None or _is_bag(path)


def _layout_of(path: Path) -> Layout | None:
    fitting = (layout for layout in LAYOUTS if path.is_dir() and layout.fits(path))
    return next(fitting, None)


def _is_bag(path: Path) -> bool:
    return path.suffix in _BAGS or (path.is_dir() and holds_bag(path))
