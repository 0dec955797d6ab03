# SPDX-License-Identifier: Apache-2.0
"""`worldsystem bag …`: recover, info, verify, cut, merge.

Exit codes: 0 done, and all of it was there; 1 done as far as the bag could be read, with what could
not on stderr (`recover` makes such a bag whole and ends with 0); 2 wrong use.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from datetime import UTC, datetime

from worldsystem.amounts import number
from worldsystem.disk_errors import with_disk_errors_told
from worldsystem.settings_text import written_path

_DAMAGED = 1


def add_bag(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command and its actions."""
    bag = commands.add_parser("bag", help="work on recordings")
    actions = bag.add_subparsers(required=True, metavar="ACTION")
    for name, run, meaning in (
        ("recover", _recover, "make a recording that was cut off by a crash readable again"),
        ("info", _info, "what a recording holds"),
        ("verify", _verify, "check every chunk, index and count; exit code 1 when damaged"),
    ):
        action = actions.add_parser(name, help=meaning)
        action.add_argument(
            "path", type=written_path, metavar="BAG", help="a bag's folder or .mcap file"
        )
        action.set_defaults(command=with_disk_errors_told(run))
    _add_cut(actions)
    merge = actions.add_parser("merge", help="several recordings as one, by time")
    merge.add_argument("bags", type=written_path, nargs="+", metavar="BAG")
    merge.add_argument("--out", type=written_path, required=True, help="folder of the new bag")
    merge.set_defaults(command=with_disk_errors_told(_merge))


def _add_cut(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    cut = actions.add_parser("cut", help="a part of a recording, by time and topics")
    cut.add_argument("path", type=written_path, metavar="BAG")
    cut.add_argument("--out", type=written_path, required=True, help="folder of the new bag")
    cut.add_argument("--start", type=number, default=0.0, help="after the bag's start [s]")
    cut.add_argument("--end", type=number, default=float("inf"), help="after the bag's start [s]")
    cut.add_argument("--topics", default="", help="regular expression of topics to keep")
    cut.set_defaults(command=with_disk_errors_told(_cut))


def _recover(options: argparse.Namespace) -> int:
    from worldsystem_storage.recover import recover

    bag = recover(options.path)
    for topic, count in sorted(bag.messages.items()):
        print(f"{count:8d}  {topic}")
    state = "repaired" if bag.repaired else "was whole"
    print(f"{sum(bag.messages.values()):8d}  messages in {bag.path}: {state}")
    if bag.last_ns:
        newest = datetime.fromtimestamp(bag.last_ns / 1e9, UTC)
        print(f"newest message: {newest.isoformat(' ', 'milliseconds')}")
    if bag.loss():
        print(f"lost: {bag.loss()}")
    for kept in bag.kept:
        print(f"the damaged original is kept as {kept}")
    return 0


def _info(options: argparse.Namespace) -> int:
    from worldsystem_storage.bag_tools import info

    bag = info(options.path)
    print(f"{bag.path}: {bag.files} file(s), {bag.size_bytes / 1e6:.1f} MB, {bag.duration_s:.1f} s")
    for topic in bag.topics:
        rate_hz = topic.messages / bag.duration_s if bag.duration_s else 0.0
        size = f"{topic.size_bytes / 1e6:9.2f} MB"
        print(f"{topic.messages:8d}  {rate_hz:7.1f} Hz  {size}  {topic.name}  {topic.type_name}")
    return _told(bag.problems)


def _verify(options: argparse.Namespace) -> int:
    from worldsystem_storage.bag_check import verify

    problems = verify(options.path)
    for problem in problems:
        print(problem)
    if not problems:
        print(f"{options.path}: sound")
    return _DAMAGED if problems else 0


def _cut(options: argparse.Namespace) -> int:
    from worldsystem_storage.bag_tools import cut

    done = cut(
        options.path,
        options.out,
        start_s=options.start,
        end_s=options.end,
        topics=options.topics,
    )
    print(f"{done.messages} messages in {options.out}")
    return _told(done.problems)


def _merge(options: argparse.Namespace) -> int:
    from worldsystem_storage.bag_tools import merge

    done = merge(options.bags, options.out)
    print(f"{done.messages} messages in {options.out}")
    return _told(done.problems)


def _told(problems: Sequence[str]) -> int:
    """Say what could not be read; the exit code that goes with it."""
    for problem in problems:
        print(f"worldsystem: not all could be read: {problem}", file=sys.stderr)
    return _DAMAGED if problems else 0
