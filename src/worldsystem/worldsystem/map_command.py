# SPDX-License-Identifier: Apache-2.0
"""`worldsystem map …`: info on a saved map; save, load and reset in a system that runs."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime
from pathlib import Path

from worldsystem.namespace_option import add_namespace
from worldsystem.settings_text import written_path

_FAILED = 1


def add_map(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command and its actions."""
    command = commands.add_parser("map", help="save, load, begin anew and look at maps")
    actions = command.add_subparsers(required=True, metavar="ACTION")
    info = actions.add_parser("info", help="what a saved map holds; every file is checked")
    info.add_argument("path", type=written_path, metavar="MAP", help="folder of a map")
    info.set_defaults(command=_info)
    for name, meaning in (
        ("save", "save the map of the system that runs (empty: into the run's folder)"),
        ("load", "load a map into a system that runs, before its camera is located"),
    ):
        action = actions.add_parser(name, help=meaning)
        action.add_argument("path", nargs="?", default="", metavar="MAP", help="folder of a map")
        add_namespace(action)
        action.set_defaults(command=_ask, service=f"{name}_map")
    reset = actions.add_parser("reset", help="begin an empty map in a system that runs")
    add_namespace(reset)
    reset.set_defaults(command=_reset)


def _info(options: argparse.Namespace) -> int:
    from worldsystem_slam3r.maps.content import SavedMap

    saved = SavedMap(options.path)
    saved.check()
    manifest, facts = saved.manifest, saved.manifest.facts
    size = sum(entry.size for entry in manifest.files.values())
    when = datetime.fromtimestamp(manifest.saved_ns / 1e9, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    root = "metric (`map`)" if facts["root"] == "map" else "scale unknown (`scene`)"
    print(f"{options.path}: save {manifest.generation}, {when}, {size / 1e6:.1f} MB")
    print(f"{facts['keyframes']:>8}  keyframes, {facts['loops']} loops; {root}")
    if saved.enu is not None:
        enu = saved.enu
        print(
            f"  origin  {enu.latitude_deg:.7f}°, {enu.longitude_deg:.7f}°, {enu.altitude_m:.1f} m"
        )
    print(f"{len(manifest.files):8d}  files, all sound")
    return 0


def _ask(options: argparse.Namespace) -> int:
    from worldsystem.app import ask_map_service

    path = str(Path(options.path).resolve()) if options.path else ""
    success, message = ask_map_service(options.service, path, options.namespace)
    print(message)
    return 0 if success else _FAILED


def _reset(options: argparse.Namespace) -> int:
    from worldsystem.app import reset_map

    success, message = reset_map(options.namespace)
    print(message)
    return 0 if success else _FAILED
