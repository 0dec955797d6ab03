# SPDX-License-Identifier: Apache-2.0
"""`worldsystem import` and `worldsystem export`: data sets in, data sets out."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from worldsystem.disk_errors import with_disk_errors_told
from worldsystem.settings_text import written_path

_DAMAGED = 1
_WRONG_USE = 2


def add_import(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `import`."""
    command = commands.add_parser(
        "import",
        help="TUM RGB-D, 7-Scenes, EuRoC, KITTI, pictures, a video or another bag as a bag of ours",
        description="PATH is a data set's folder, a folder of pictures, a video, or a bag of ROS 1 "
        "or 2; what it is, its files tell. `worldsystem run BAG` then plays it. Exit code 1: "
        "imported, but not all of it could be read.",
    )
    command.add_argument("path", type=written_path, metavar="PATH")
    command.add_argument("--out", type=written_path, required=True, help="folder of the new bag")
    command.add_argument("--fps", type=float, default=30.0, help="of pictures without stamps [Hz]")
    command.add_argument("--focal", type=float, default=0.0, help="focal length, if known [px]")
    command.set_defaults(command=with_disk_errors_told(_import))


def add_export(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `export`."""
    command = commands.add_parser(
        "export",
        help="a recorded run as COLMAP, nerfstudio, TUM, GLB, LAS, COCO, …",
        description="RUN is a run's folder, as runs/<time>, or a bag. Without --to the formats are "
        "listed.",
    )
    command.add_argument("run", type=written_path, nargs="?", metavar="RUN")
    command.add_argument("--to", default="", metavar="FORMAT", help="which format")
    command.add_argument(
        "--out",
        type=written_path,
        help="folder or file to write (default: RUN/export/FORMAT; of a file, beside it)",
    )
    command.add_argument(
        "--faces", type=int, default=0, metavar="N", help="of ply, obj, glb: about N faces at most"
    )
    command.add_argument(
        "--texture", action="store_true", help="of obj, glb: a texture made of keyframes"
    )
    command.set_defaults(command=with_disk_errors_told(_export))


def _import(options: argparse.Namespace) -> int:
    from worldsystem.import_pictures import import_pictures
    from worldsystem_storage.importing.sources import import_path, is_known

    if is_known(options.path):
        done = import_path(options.path, options.out)
    else:
        done = import_pictures(options.path, options.out, fps=options.fps, focal_px=options.focal)
    for topic, count in sorted(done.messages.items()):
        print(f"{count:8d}  {topic}")
    print(f"written to {options.out}")
    if done.problem:
        print(f"worldsystem: not all could be read: {done.problem}", file=sys.stderr)
    return _DAMAGED if done.problem else 0


def _export(options: argparse.Namespace) -> int:
    from worldsystem_storage.export.formats import FORMATS, export

    if options.run is None or not options.to:
        for name, (_, meaning) in FORMATS.items():
            print(f"{name:12s} {meaning}")
        return 0 if options.run is None else _WRONG_USE
    out = options.out or _folder_of_exports(options.run) / options.to
    if options.faces or options.texture:
        from worldsystem.export_surface import export_surface

        print(
            export_surface(
                options.run, options.to, out, max_faces=options.faces, texture=options.texture
            )
        )
        return 0
    print(export(options.run, options.to, out))
    return 0


def _folder_of_exports(run: Path) -> Path:
    """In the run's folder; of a bag's file, in a folder of its name beside it."""
    return (run if run.is_dir() else run.with_suffix("")) / "export"
