# SPDX-License-Identifier: Apache-2.0
"""A run of the whole system, its processes, and what it holds of shared memory."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from bench_soak import free_ports
from soak_samples import PROC, unexplained_frames

_WORKER = "worldsystem_slam3r.apart.worker"
_AT_WORK = "slam3r_worker"
"""Its name once it is no longer in reserve."""
_SPARE = "worldsystem.spare_process"
_SHARED_MEMORY = Path("/dev/shm")
_END_S = 240.0
PICTURE = {"width": 320, "height": 180, "fps": 5}
"""What two cores hold with a process for each stage; the demo's 640x360 at 15 is more."""


class Run:
    """The demo's flight in a loop, by the command line, in `folder`."""

    def __init__(self, folder: Path, *, separate: bool, lap_s: float = 30.0) -> None:
        self.folder = folder / "run"
        self.ports = free_ports()
        self._log = folder / "run.log"
        settings = [f"{name}={port}" for name, port in self.ports.items()]
        settings += ["viewer.rerun=false", "simulator.loop=true", f"simulator.duration_s={lap_s:g}"]
        settings += [f"simulator.{name}={value}" for name, value in PICTURE.items()]
        command = [sys.executable, "-m", "worldsystem.cli", "demo", "--duration", "1e7"]
        command += ["--out", str(self.folder), *(["--separate"] if separate else [])]
        self._output = self._log.open("w")
        self._process = subprocess.Popen(
            [*command, "--set", *settings],
            stdout=self._output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    @property
    def words(self) -> str:
        """What it printed."""
        return self._log.read_text(errors="replace")

    def stages(self) -> dict[str, int]:
        """The processes of its stages, and of the reconstruction's worker, by name."""
        found = {}
        for pid in family(self._process.pid):
            words = command_words(pid)
            names = [w.removeprefix("__node:=") for w in words if w.startswith("__node:=")]
            if _SPARE in words:  # the stage's name once it became one, else the interpreter's
                names = [process_name(pid)]
            elif _WORKER in words and process_name(pid) == _AT_WORK:
                names = ["worker"]
            found.update(dict.fromkeys(names, pid))
        return found

    def left(self, before: set[str]) -> set[str]:
        """Files of shared memory that were not there `before` and that nobody has open now.

        Others on the machine may make their own meanwhile, and hold them.
        """
        new = {path.name for path in _SHARED_MEMORY.iterdir()} - before
        held = set()
        for maps in PROC.glob("[0-9]*/maps"):
            with suppress(OSError):
                lines = maps.read_text(errors="replace").splitlines()
                held |= {Path(line.split()[5]).name for line in lines if "/dev/shm/" in line}
        return new - held

    def end(self) -> float:
        """End it as Ctrl-C would; its unexplained frames, or NaN when it left no summary."""
        if self.alive:
            self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            print(f"the run did not end within {_END_S:.0f} s", file=sys.stderr)
        return unexplained_frames(self.folder)

    def close(self) -> None:
        self._process.kill()
        self._process.wait(10.0)
        self._output.close()


def family(root: int) -> list[int]:
    """`root` and all that descend from it."""
    parents = {}
    for entry in PROC.iterdir():
        if entry.name.isdigit():
            try:
                after_name = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if after_name[0] != "Z":
                parents[int(entry.name)] = int(after_name[1])
    found = [root]
    for pid in found:
        found += [child for child, parent in parents.items() if parent == pid]
    return found


def command_words(pid: int) -> list[str]:
    """The command line of a process; empty when it is gone."""
    try:
        return (PROC / str(pid) / "cmdline").read_text().split("\0")
    except OSError:
        return []


def process_name(pid: int) -> str:
    """As `top` shows it; empty when it is gone."""
    try:
        return (PROC / str(pid) / "comm").read_text().strip()
    except OSError:
        return ""


def kill(pid: int) -> float:
    """SIGKILL, as the kernel does for want of memory; the moment of it."""
    os.kill(pid, signal.SIGKILL)
    return time.monotonic()
