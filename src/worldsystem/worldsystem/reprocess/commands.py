# SPDX-License-Identifier: Apache-2.0
"""`worldsystem reprocess RUNS...`.

Exit codes: 0 every result is there; 1 some run failed or was interrupted; 2 wrong use.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from worldsystem.amounts import number
from worldsystem.disk_errors import with_disk_errors_told
from worldsystem.graph import Choice, check_names
from worldsystem.reprocess.outcome import table, write_results
from worldsystem.reprocess.plan import (
    ReprocessError,
    Settings,
    Task,
    finished,
    has_result,
    plan,
    remove_parts,
)
from worldsystem.reprocess.pool import Room, chosen_pool
from worldsystem.reprocess.task import Outcome, sole_use
from worldsystem.settings_text import parse_settings, written_path

_FAILED = 1


def add_reprocess(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    command = commands.add_parser(
        "reprocess",
        help="recorded runs through the pipeline again with other settings, several at once",
        description="RUNS are runs' folders, bags or videos. Each is run by itself, headless; what "
        "is finished already is skipped, so that the same command goes on after an interruption. "
        "With Ray installed they run on Ray, here or with --address in a cluster whose machines "
        "see the same folders. Exit code 1: not every run could be finished.",
    )
    command.add_argument("runs", type=written_path, nargs="+", metavar="RUNS")
    command.add_argument(
        "--out", type=written_path, help="folder of the results (default: by settings)"
    )
    command.add_argument("--again", action="store_true", help="also those that are finished")
    command.add_argument("--workers", type=int, default=0, help="runs at once (default: by cores)")
    command.add_argument("--cpus", type=number, default=2.0, help="cores for each run")
    command.add_argument("--gpus", type=float, default=0.0, help="GPUs, or a part, for each run")
    command.add_argument("--timeout", type=float, default=86400.0, help="longest run [s]")
    command.add_argument("--address", default="", help="a Ray cluster, as host:6379 or auto")
    command.add_argument(
        "--ray", choices=("auto", "yes", "no"), default="auto", help="auto: where it is installed"
    )
    command.add_argument("--backend", default=Choice.backend, help="reconstruction back-end")
    command.add_argument(
        "--device", default=Choice.device, help="where the mesh lives: auto, cpu, cuda"
    )
    command.add_argument("--focal", type=float, default=0.0, help="focal length, if known [px]")
    command.add_argument("--record", action="store_true", help="record each run, too")
    command.add_argument("--set", nargs="+", action="extend", default=[], metavar="NODE.NAME=VALUE")
    command.set_defaults(command=with_disk_errors_told(_reprocess))


def _reprocess(options: argparse.Namespace) -> int:
    settings = _settings(options)
    out = options.out or Path("runs") / f"reprocessed_{settings.digest}"
    room, pool = _room(options), chosen_pool(options.address, options.ray)
    tasks = plan(options.runs, out, settings)
    far = out.resolve()  # where workers of a cluster, which begin elsewhere, find it, too
    with sole_use(out), tempfile.TemporaryDirectory(dir=far, prefix=".stop-") as folder:
        remove_parts(out)
        is_there = has_result if options.again else finished
        there = [task for task in tasks if is_there(task)]  # what is in the way is told first
        skipped = [] if options.again else there
        outcomes = {task.name: _skipped(task) for task in skipped}
        open_tasks = [task for task in tasks if task.name not in outcomes]
        print(f"{len(open_tasks)} to run, {len(outcomes)} finished before, results in {out}")
        if open_tasks:
            outcomes |= _performed(pool(open_tasks, room, Path(folder) / "stop"))
        return _conclude(out, tasks, outcomes)


def _performed(coming: Generator[Outcome, None, None]) -> dict[str, Outcome]:
    """The outcomes by name, told as they come; those that came before an interruption."""
    outcomes: dict[str, Outcome] = {}
    with _ended_by_signals():
        try:
            with closing(coming):
                for outcome in coming:
                    outcomes[outcome.name] = outcome
                    print(f"  {outcome.state:11s} {outcome.name}  {outcome.problem}", flush=True)
        except KeyboardInterrupt:
            print("interrupted; the same command goes on from here", file=sys.stderr)
    return outcomes


def _conclude(out: Path, tasks: list[Task], outcomes: dict[str, Outcome]) -> int:
    ordered = [
        outcomes.get(task.name, Outcome(task.name, "interrupted", str(task.folder)))
        for task in tasks
    ]
    path = write_results(out, ordered)
    print(f"\n{table(ordered)}\n\nwritten: {path}; what each printed: {out / 'logs'}")
    well = all(outcome.state in ("finished", "skipped") for outcome in ordered)
    return 0 if well else _FAILED


def _skipped(task: Task) -> Outcome:
    return Outcome(task.name, "skipped", str(task.folder))


def _settings(options: argparse.Namespace) -> Settings:
    check_names(parse_settings(options.set))  # a wrong word is told before anything runs
    words = ["--backend", options.backend, "--device", options.device]
    words += ["--focal", f"{options.focal:g}"] if options.focal else []
    words += [] if options.record else ["--no-record"]
    words += ["--set", *options.set] if options.set else []
    return Settings(tuple(words), options.timeout)


def _room(options: argparse.Namespace) -> Room:
    if options.workers < 0 or options.cpus <= 0 or options.gpus < 0 or options.timeout <= 0:
        raise ReprocessError("--workers, --cpus, --gpus and --timeout must be positive numbers")
    if options.gpus > 1 and options.gpus % 1:
        raise ReprocessError(f"--gpus {options.gpus:g}: a part of one GPU, or whole ones")
    by_cores = max(1, int(len(os.sched_getaffinity(0)) // options.cpus))
    most = 1000 if options.address else by_cores
    return Room(options.workers or most, options.cpus, options.gpus, options.address)


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """SIGTERM is taken as Ctrl-C. The first of either counts: who left before the runs are ended
    would leave them going, and those that wait for them would begin."""
    before = {
        which: handler
        for which in (signal.SIGINT, signal.SIGTERM)
        if (handler := signal.getsignal(which)) is not signal.SIG_IGN
    }

    def interrupt(*_: object) -> None:
        for which in before:
            signal.signal(which, signal.SIG_IGN)
        raise KeyboardInterrupt

    for which in before:
        signal.signal(which, interrupt)
    try:
        yield
    finally:
        for which, handler in before.items():
            signal.signal(which, signal.SIG_DFL if handler is None else handler)
