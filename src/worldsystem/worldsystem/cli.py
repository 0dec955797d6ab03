# SPDX-License-Identifier: Apache-2.0
"""The `worldsystem` command."""

from __future__ import annotations

import argparse
import io
import logging
import math
import sys
from pathlib import Path

from worldsystem.amounts import amount
from worldsystem.backends_command import add_backends
from worldsystem.bag_commands import add_bag
from worldsystem.catalogue.commands import add_runs
from worldsystem.dataset_commands import add_export, add_import
from worldsystem.disk_errors import with_disk_errors_told
from worldsystem.evaluation_command import add_eval
from worldsystem.graph import SIMULATED_S, Choice, is_served, is_simulated
from worldsystem.map_command import add_map
from worldsystem.node_command import add_node
from worldsystem.objects_command import add_objects
from worldsystem.replay_command import add_replay
from worldsystem.reprocess.commands import add_reprocess
from worldsystem.run_folder import new_run_folder
from worldsystem.settings_text import parse_settings, written_out, written_path
from worldsystem.status_line import say
from worldsystem.watch.commands import add_watch
from worldsystem_core.errors import ConfigError, WorldSystemError
from worldsystem_core.installed import find_installed_prefix, installed_version
from worldsystem_core.json_log import FORMS, choose_log, json_handler, logs_json
from worldsystem_ingest.config import IngestConfig
from worldsystem_viewer.config import ViewerConfig

_WRONG_USE, _INTERRUPTED = 2, 130


def main(arguments: list[str] | None = None) -> int:
    """Run one command; errors of use are one line on stderr and exit code 2, and
    Ctrl-C is 130."""
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="replace")  # a terminal may lack some of our letters
    options = _parser().parse_args(arguments)
    find_installed_prefix()
    if getattr(options, "log", ""):
        choose_log(options.log)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    if logs_json():
        logging.getLogger().handlers = [json_handler()]
    try:
        return int(options.command(options))
    except WorldSystemError as error:
        print(f"worldsystem: {error}", file=sys.stderr)
        return _WRONG_USE
    except KeyboardInterrupt:
        return _INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="worldsystem", description="From video to a live, labelled 3D world."
    )
    version = f"worldsystem {installed_version()}"
    parser.add_argument("--version", action="version", version=version)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_run(commands)
    _add_demo(commands)
    _add_sim(commands)
    add_replay(commands)
    add_reprocess(commands)
    add_bag(commands)
    add_runs(commands)
    add_map(commands)
    add_objects(commands)
    add_import(commands)
    add_export(commands)
    add_eval(commands)
    add_node(commands)
    add_watch(commands)
    _add_doctor(commands)
    add_backends(commands)
    return parser


def _add_run(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    run = commands.add_parser(
        "run",
        help="reconstruct a file, URL, camera or folder of images",
        description="SOURCE is a video file, a folder of images, rtsp:// and other URLs, camera:0, "
        "server: (wait for the drone app), or sim (the built-in drone).",
    )
    run.add_argument("source", metavar="SOURCE")
    run.add_argument(
        "--duration",
        type=amount,
        help=f"stop after so long [s] (default: when the source ends; sim: after {SIMULATED_S:g})",
    )
    run.add_argument("--realtime", action="store_true", help="play files at their own pace")
    run.add_argument(
        "--truth", type=written_out, default="", help="ground-truth trajectory to compare with"
    )
    run.add_argument(
        "--no-ros",
        action="store_true",
        help="a plain loop in one process: no ROS, no viewers, no MCAP",
    )
    _add_common(run)
    run.set_defaults(command=with_disk_errors_told(_run))


def _add_demo(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    demo = commands.add_parser("demo", help="the whole system on the built-in drone simulator")
    demo.add_argument(
        "--duration", type=float, default=SIMULATED_S, help="length of the flight [s]"
    )
    _add_common(demo)
    told = with_disk_errors_told(_run)
    demo.set_defaults(command=told, source="sim", realtime=True, truth="", no_ros=False)


def _add_common(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--backend",
        default=Choice.backend,
        help="reconstruction back-end; `worldsystem backends` lists them (default: %(default)s)",
    )
    command.add_argument(
        "--device",
        default=Choice.device,
        help="where the mesh lives: auto, cpu, cuda (default: %(default)s)",
    )
    command.add_argument("--focal", type=float, help="focal length, if known [px]")
    command.add_argument(
        "--out", type=written_path, help="folder of the run (default: runs/<time>)"
    )
    command.add_argument("--headless", action="store_true", help="no viewers, no servers for them")
    command.add_argument("--no-record", action="store_true", help="write no bag and no video")
    command.add_argument(
        "--log", choices=FORMS, help="form of the log on stderr (default: WORLDSYSTEM_LOG, or text)"
    )
    command.add_argument(
        "--separate",
        action="store_true",
        help="each stage a process of its own, begun anew when it dies; files at their own pace",
    )
    for name, default, purpose in (
        ("--port", IngestConfig.port, "of the video server"),
        ("--web-port", ViewerConfig.web_port, "of the web page"),
        ("--foxglove-port", ViewerConfig.foxglove_port, "for Foxglove"),
        ("--rerun-port", ViewerConfig.rerun_port, "for Rerun"),
    ):
        command.add_argument(name, type=int, help=f"port {purpose} (default: {default})")
    command.add_argument(
        "--set",
        nargs="+",
        action="extend",
        default=[],
        metavar="NODE.NAME=VALUE",
        help="any parameter of docs/parameters.md, e.g. mesher.voxel=0.05",
    )


def _add_sim(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    sim = commands.add_parser("sim", help="the drone simulator alone, sending to any server")
    sim.add_argument("url", nargs="?", metavar="URL", help="server, as ws://host:5001")
    sim.add_argument("--flight", help="demo, orbit, survey, facade, flythrough, hover or yaw")
    sim.add_argument("--duration", type=float, help="length of the flight [s]")
    sim.add_argument("--out", help="folder for the ground truth")
    sim.add_argument(
        "--set",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME=VALUE",
        help="any setting, as seed=2 loss=0.05",
    )
    sim.add_argument("--list", action="store_true", help="list the settings")
    sim.set_defaults(command=with_disk_errors_told(_sim))


def _add_doctor(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    doctor = commands.add_parser("doctor", help="what is installed, what is missing, how to get it")
    doctor.set_defaults(command=_doctor)


def _run(options: argparse.Namespace) -> int:
    choice = _choice(options)
    if options.no_ros and options.separate:
        raise ConfigError("--no-ros is a loop in one process; leave it or --separate out")
    if options.no_ros:
        from worldsystem.pipeline import run_pipeline

        folder = run_pipeline(choice, truth=options.truth)
    else:
        from worldsystem.app import App, run_until_interrupted
        from worldsystem.separate import SeparateApp

        app = SeparateApp(choice) if options.separate else App(choice)
        folder = run_until_interrupted(app)
    say(f"done: {folder / 'report.html'}")
    return 0


def _choice(options: argparse.Namespace) -> Choice:
    extra = parse_settings(options.set)
    flags: dict[str, dict[str, object]] = {
        "ingest": _given(port=options.port, focal_px=options.focal),
        "viewer": _given(
            web_port=options.web_port,
            foxglove_port=options.foxglove_port,
            rerun_port=options.rerun_port,
        ),
        "reporter": {"truth": options.truth} if options.truth else {},
    }
    if options.focal and is_served(options.source):
        flags["slam3r"] = {"focal_px": options.focal}
    return Choice(
        source=options.source,
        backend=options.backend,
        device=options.device,
        record=not options.no_record,
        viewer=not options.headless,
        out=options.out or new_run_folder(Path("runs")),
        own_folder=options.out is None,
        duration_s=_duration_s(options),
        realtime=options.realtime,
        extra={name: flags.get(name, {}) | extra.get(name, {}) for name in flags.keys() | extra},
    )


def _given(**options: object) -> dict[str, object]:
    """Those that were given: without them the stages' own defaults count."""
    return {name: value for name, value in options.items() if value is not None}


def _duration_s(options: argparse.Namespace) -> float:
    """A simulator's flight has a length; anything else goes on until it ends."""
    if options.duration is not None:
        return float(options.duration)
    return SIMULATED_S if is_simulated(options.source) else math.inf


def _sim(options: argparse.Namespace) -> int:
    from worldsystem.simulate import list_settings, simulate

    if options.list:
        list_settings()
        return 0
    given = {"url": options.url, "flight": options.flight, "out": options.out}
    given["duration_s"] = options.duration
    words = [f"{name}={value}" for name, value in given.items() if value is not None]
    return simulate([*words, *options.set])


def _doctor(_: argparse.Namespace) -> int:
    from worldsystem.doctor import examine

    return examine()


if __name__ == "__main__":
    sys.exit(main())
