# SPDX-License-Identifier: Apache-2.0
"""`worldsystem status` and `worldsystem top`: how a system that runs is doing."""

from __future__ import annotations

import argparse
import json
import time
from contextlib import suppress

from worldsystem.namespace_option import add_namespace
from worldsystem.watch.server import health
from worldsystem.watch.state import SILENT_AFTER_S, SystemState, problems
from worldsystem.watch.table import table

_WELL, _UNWELL, _NOBODY = 0, 1, 3
_LISTEN_S = SILENT_AFTER_S + 1.0
"""Long enough to notice a node that falls silent; of those silent before, the reporter tells."""
_CLEAR = "\x1b[H\x1b[2J"


def add_watch(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add both commands."""
    status = commands.add_parser(
        "status",
        help="each node's state in a system that runs",
        description="Exit code 0: all is well; 1: a node has a problem or fell silent; "
        "3: no system was heard.",
    )
    status.add_argument("--json", action="store_true", help="as JSON")
    status.add_argument("--wait", type=float, default=_LISTEN_S, help="how long to listen [s]")
    status.set_defaults(command=_status)
    top = commands.add_parser("top", help="a live table of the nodes, until Ctrl-C")
    top.add_argument("--period", type=float, default=1.0, help="time between two tables [s]")
    top.set_defaults(command=_top)
    for command in (status, top):
        add_namespace(command)


def _status(options: argparse.Namespace) -> int:
    from worldsystem.watch.node import watch

    seen: list[SystemState] = []

    def take(state: SystemState) -> bool:
        seen.append(state)
        return False

    watch(options.namespace, take, max(0.1, options.wait))
    return told(seen[0], as_json=options.json)


def told(state: SystemState, *, as_json: bool) -> int:
    """Print `state`; the exit code that says how it is."""
    nodes = state.nodes()
    if as_json:
        print(json.dumps(health(state)[1]))
    elif not nodes:
        print("no system was heard: is one running, in this ROS_DOMAIN_ID and --namespace?")
    else:
        print(table(nodes))
        print("\n".join(problems(nodes)) or "all is well")
    if not nodes:
        return _NOBODY
    return _UNWELL if problems(nodes) else _WELL


def _top(options: argparse.Namespace) -> int:
    from worldsystem.watch.node import watch

    def show(state: SystemState) -> bool:
        nodes = state.nodes()
        lines = [time.strftime("%H:%M:%S"), table(nodes), *problems(nodes)]
        print(_CLEAR + "\n".join(lines), flush=True)
        return True

    with suppress(KeyboardInterrupt):
        watch(options.namespace, show, max(0.2, options.period))
    return _WELL
