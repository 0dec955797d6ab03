# SPDX-License-Identifier: Apache-2.0
"""`worldsystem runs …`: list, show, compare, prune, index."""

from __future__ import annotations

import argparse
import math
from pathlib import Path

from worldsystem.catalogue.index_page import write_index
from worldsystem.catalogue.prune import remove, to_prune
from worldsystem.catalogue.runs import find_run, read_runs
from worldsystem.catalogue.tables import comparison, details, listing
from worldsystem.disk_errors import with_disk_errors_told
from worldsystem.settings_text import written_path

_WRONG_USE = 2


def add_runs(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command and its actions."""
    runs = commands.add_parser("runs", help="list, compare and remove what runs left")
    runs.add_argument(
        "--folder", type=written_path, default=Path("runs"), help="folder of the runs"
    )
    listed = with_disk_errors_told(_list)
    runs.set_defaults(command=listed)
    actions = runs.add_subparsers(metavar="ACTION")
    actions.add_parser("list", help="one line for each").set_defaults(command=listed)
    show = actions.add_parser("show", help="everything known of one")
    show.add_argument("run", nargs="?", default="latest", metavar="RUN")
    show.set_defaults(command=with_disk_errors_told(_show))
    compare = actions.add_parser("compare", help="figures side by side")
    compare.add_argument("runs", nargs="+", metavar="RUN")
    compare.set_defaults(command=with_disk_errors_told(_compare))
    prune = actions.add_parser("prune", help="remove the oldest; shows what would go")
    prune.add_argument("--older-than", type=_amount, metavar="DAYS")
    prune.add_argument("--keep", type=_amount, metavar="GB", help="the oldest go until it fits")
    prune.add_argument("--yes", action="store_true", help="really remove them")
    prune.set_defaults(command=with_disk_errors_told(_prune))
    actions.add_parser("index", help="write index.html").set_defaults(
        command=with_disk_errors_told(_index)
    )


def _amount(text: str) -> float:
    value = float(text)
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is no number of at least 0")
    return value


def _list(options: argparse.Namespace) -> int:
    print(listing(read_runs(options.folder)))
    return 0


def _show(options: argparse.Namespace) -> int:
    print(details(find_run(options.folder, options.run)))
    return 0


def _compare(options: argparse.Namespace) -> int:
    print(comparison([find_run(options.folder, name) for name in options.runs]))
    return 0


def _prune(options: argparse.Namespace) -> int:
    if options.older_than is None and options.keep is None:
        print("say which: --older-than DAYS, --keep GB, or both")
        return _WRONG_USE
    going = to_prune(
        read_runs(options.folder),
        older_than_days=options.older_than,
        larger_than_gb=options.keep,
    )
    for run in going:
        print(f"{run.name}  {run.size_bytes / 1e6:.1f} MB")
    if not going:
        print("nothing to remove")
    elif options.yes:
        freed_bytes, reasons = remove(going)
        print("\n".join([f"removed, {freed_bytes / 1e6:.1f} MB freed", *reasons]))
        return _WRONG_USE if reasons else 0
    else:
        print("nothing was removed; add --yes to do it")
    return 0


def _index(options: argparse.Namespace) -> int:
    print(write_index(options.folder, read_runs(options.folder)))
    return 0
