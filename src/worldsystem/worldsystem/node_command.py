# SPDX-License-Identifier: Apache-2.0
"""`worldsystem node NAME`: one node as a process of its own, for containers and services."""

from __future__ import annotations

import argparse
import importlib
import sys

from worldsystem.graph import SIMULATOR, STAGES
from worldsystem_core.json_log import FORMS

_MODULES = {stage.name: stage.module for stage in (*STAGES, SIMULATOR)}


def add_node(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    node = commands.add_parser(
        "node",
        help="one node of the graph as a process of its own",
        description="What follows the name goes to ROS, as --ros-args -p voxel:=0.05.",
    )
    node.add_argument("--log", choices=FORMS, help="form of the log (before the name)")
    node.add_argument("name", choices=sorted(_MODULES))
    node.add_argument("arguments", nargs=argparse.REMAINDER, metavar="...")
    node.set_defaults(command=_node)


def _node(options: argparse.Namespace) -> int:
    sys.argv = [options.name, *options.arguments]
    importlib.import_module(_MODULES[options.name]).main()
    return 0
