# SPDX-License-Identifier: Apache-2.0
"""`worldsystem replay`: a recording through the same graph, with the same result each time."""

from __future__ import annotations

import argparse
import hashlib
import logging
import math
from pathlib import Path

from worldsystem.disk_errors import with_disk_errors_told
from worldsystem.graph import STAGES, Choice, Parameters
from worldsystem.run_folder import new_run_folder
from worldsystem.settings_text import parse_settings, written_path
from worldsystem.status_line import say
from worldsystem_core.errors import ConfigError

log = logging.getLogger(__name__)

_RESULTS = ("trajectory.tum", "mesh.ply")


def add_replay(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    replay = commands.add_parser(
        "replay",
        help="a recording through the whole graph again, at any pace",
        description="BAG is a bag, a run's folder or a video. Stamps are those of the recording, "
        "/clock tells them, and the other nodes follow it (use_sim_time). No picture is dropped at "
        "any rate, so that the same recording gives the same path and mesh, whose hashes are "
        "printed.",
    )
    replay.add_argument("bag", type=written_path, metavar="BAG")
    replay.add_argument("--rate", default="max", help="0.5, 1, 10, … or max (default)")
    replay.add_argument("--start", type=float, default=0.0, help="where to begin [s]")
    replay.add_argument("--duration", type=float, default=0.0, help="how much to play [s]")
    replay.add_argument("--loop", action="store_true", help="again and again, until Ctrl-C")
    replay.add_argument("--topic", default="", help="topic of the pictures, where there are more")
    replay.add_argument(
        "--topics", default="", help="regular expression of the recording's topics to play"
    )
    replay.add_argument("--backend", default=Choice.backend, help="reconstruction back-end")
    replay.add_argument(
        "--device", default=Choice.device, help="where the mesh lives: auto, cpu, cuda"
    )
    replay.add_argument("--headless", action="store_true", help="no viewers")
    replay.add_argument("--record", action="store_true", help="record the replay, too")
    replay.add_argument("--out", type=written_path, help="folder of the run (default: runs/<time>)")
    replay.add_argument("--set", nargs="+", action="extend", default=[], metavar="NODE.NAME=VALUE")
    replay.set_defaults(command=with_disk_errors_told(_replay))


def _replay(options: argparse.Namespace) -> int:
    from worldsystem.app import App, run_until_interrupted

    folder = run_until_interrupted(App(choice_of(options)))
    for name in _RESULTS:
        path = folder / name
        if path.is_file():
            say(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path}")
    say(f"done: {folder / 'report.html'}")
    return 0


def choice_of(options: argparse.Namespace) -> Choice:
    """What the words of the command ask for."""
    ingest: Parameters = {
        "speed": _rate(options.rate),
        "start_s": options.start,
        "play_s": options.duration,
        "loop": options.loop,
        "topic": options.topic,
        "topics": options.topics,
        "clock": True,
    }
    given = parse_settings(options.set)
    following = {stage.name: {"use_sim_time": True} for stage in STAGES if stage.name != "ingest"}
    extra: dict[str, Parameters] = {
        name: following.get(name, {}) | given.get(name, {}) for name in following | given
    }
    return Choice(
        source=str(recording_in(options.bag)),
        backend=options.backend,
        device=options.device,
        record=options.record,
        viewer=not options.headless,
        out=options.out or new_run_folder(Path("runs")),
        own_folder=options.out is None,
        duration_s=float("inf"),
        extra=extra | {"ingest": ingest | extra.get("ingest", {})},
    )


def recording_in(path: Path) -> Path:
    """The bag of a run's folder; any other path as it is."""
    if not (path / "bag" / "metadata.yaml").is_file():
        return path
    if further := sorted({file.parent.name for file in path.glob("bag_*/*.mcap")}):
        log.warning(
            "%s was recorded in parts, as its recorder was begun anew: only bag is played, not %s; "
            "name the folder of a part to play that",
            path,
            ", ".join(further),
        )
    return path / "bag"


def _rate(text: str) -> float:
    if text == "max":
        return 0.0
    try:
        rate = float(text)
    except ValueError:
        rate = 0.0
    if not 0 < rate < math.inf:
        raise ConfigError(f"--rate {text} must be a positive number, or max")
    return rate
