# SPDX-License-Identifier: Apache-2.0
"""`worldsystem import` and `worldsystem export`: data sets in, data sets out."""

from __future__ import annotations

import argparse
from pathlib import Path

_WRONG_USE = 2


def add_import(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `import`."""
    command = commands.add_parser(
        "import",
        help="TUM RGB-D, 7-Scenes, EuRoC, KITTI or another bag as a bag of ours",
        description="PATH is a data set's folder or a bag of ROS 1 or 2; what it is, its files "
        "tell. `worldsystem run BAG` then plays it.",
    )
    command.add_argument("path", type=Path, metavar="PATH")
    command.add_argument("--out", type=Path, required=True, help="folder of the new bag")
    command.set_defaults(command=_import)


def add_export(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `export`."""
    command = commands.add_parser(
        "export",
        help="a recorded run as COLMAP, nerfstudio, TUM, GLB, LAS, COCO, …",
        description="RUN is a run's folder, as runs/<time>, or a bag. Without --to the formats are "
        "listed.",
    )
    command.add_argument("run", type=Path, nargs="?", metavar="RUN")
    command.add_argument("--to", default="", metavar="FORMAT", help="which format")
    command.add_argument(
        "--out", type=Path, help="folder or file to write (default: RUN/export/FORMAT)"
    )
    command.set_defaults(command=_export)


def _import(options: argparse.Namespace) -> int:
    from worldsystem_storage.importing.sources import import_path

    for topic, count in sorted(import_path(options.path, options.out).items()):
        print(f"{count:8d}  {topic}")
    print(f"written to {options.out}")
    return 0


def _export(options: argparse.Namespace) -> int:
    from worldsystem_storage.export.formats import FORMATS, export

    if options.run is None or not options.to:
        for name, (_, meaning) in FORMATS.items():
            print(f"{name:12s} {meaning}")
        return 0 if options.run is None else _WRONG_USE
    out = options.out or options.run / "export" / options.to
    print(export(options.run, options.to, out))
    return 0
