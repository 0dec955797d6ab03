# SPDX-License-Identifier: Apache-2.0
"""`worldsystem backends`: each reconstruction back-end, its licence, and whether it runs here."""

from __future__ import annotations

import argparse

from worldsystem_slam3r.catalogue import BackendState, backend_states


def add_backends(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser."""
    backends = commands.add_parser(
        "backends", help="the reconstruction back-ends and whether they run here"
    )
    backends.set_defaults(command=_print)


def _print(_: argparse.Namespace) -> int:
    for state in backend_states():
        print("\n".join(described(state)))
    return 0


def described(state: BackendState) -> list[str]:
    """The lines that tell one back-end."""
    here = "runs here" if state.runs else "does not run here"
    if state.runs and not state.fast:
        here += ", but slower than a video: there is no GPU"
    lines = [
        f"{state.name:12s} {here}",
        f"{'':12s} {state.what}",
        f"{'':12s} needs {state.needs}",
        f"{'':12s} licence {state.licence}",
    ]
    return lines if state.runs else [*lines, f"{'':12s} → {state.why_not}"]
