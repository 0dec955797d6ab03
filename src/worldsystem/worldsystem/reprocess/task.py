# SPDX-License-Identifier: Apache-2.0
"""One task: `worldsystem run` headless in a process of its own, and its result put in place."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from worldsystem.reprocess.plan import ReprocessError, Task, put_in_place
from worldsystem_core.child_process import die_with_parent
from worldsystem_core.dds_domain import reserve

_DOMAINS = range(101, 0, -1)
"""DDS keeps its ports below those that the kernel hands out for domains up to this one."""
_POLL_S = 0.1
_MOST_TOLD = 300
_NO_FIXED_PORTS = ("monitor.port=0", "mesher.metrics_port=0")
_BROKER = "RABBITMQ_URL"
"""Its consumers listen to what is flown now; `--set bridge.url=…` asks for the bridge here."""


@dataclass(frozen=True)
class Outcome:
    """What became of a task: `finished`, `skipped`, `failed` or `interrupted`."""

    name: str
    state: str
    folder: str
    seconds: float = 0.0
    problem: str = ""


def perform(task: Task, stopped: Path | None = None) -> Outcome:
    """Run the task to its end. Its result is put in place when it is whole: until then there is no
    folder of it, or that of an earlier result, which also stays when this one fails.

    It ends early, as `interrupted`, once the file `stopped` is there.
    """
    begun_s = time.monotonic()
    part = task.part(uuid.uuid4().hex[:8])
    try:
        problem = _run(task, part, stopped)
        if not problem:
            put_in_place(task, part)
    except (OSError, ReprocessError) as error:
        problem = str(error)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    state = "failed" if problem else "finished"
    if problem and stopped is not None and stopped.exists():
        state, problem = "interrupted", ""
    seconds = time.monotonic() - begun_s
    return Outcome(task.name, state, str(task.folder), seconds, problem)


def command_of(task: Task, part: Path) -> list[str]:
    """`worldsystem run` without viewers and without ports that two could want."""
    command = [sys.executable, "-m", "worldsystem.cli", "run", task.recording]
    command += ["--out", str(part), "--headless", "--port", "0"]
    command += ["--truth", task.truth] if task.truth else []
    return [*command, *task.settings.words, "--set", *_NO_FIXED_PORTS]


def _run(task: Task, part: Path, stopped: Path | None) -> str:
    """Run the command and wait for it; what went wrong, or nothing."""
    task.log_file.parent.mkdir(parents=True, exist_ok=True)
    environment = {name: value for name, value in os.environ.items() if name != _BROKER}
    with claimed_domain() as domain, task.log_file.open("wb") as log:
        process = subprocess.Popen(
            command_of(task, part),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment | {"ROS_DOMAIN_ID": str(domain)},
            start_new_session=True,  # Ctrl-C is for the one who started it
            preexec_fn=die_with_parent,
        )
        try:
            problem = _wait(process, task.settings.timeout_s, stopped)
        finally:
            _kill(process)
    if problem or process.returncode == 0:
        return problem
    return _last_words(task.log_file, process.returncode)


def _wait(process: subprocess.Popen[bytes], timeout_s: float, stopped: Path | None) -> str:
    deadline = time.monotonic() + timeout_s
    while process.poll() is None:
        if stopped is not None and stopped.exists():
            return "interrupted"
        if time.monotonic() > deadline:
            return f"took longer than {timeout_s:g} s; --timeout gives it more"
        time.sleep(_POLL_S)
    return ""


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Its result would be thrown away, so it need not end in order."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@contextmanager
def claimed_domain() -> Iterator[int]:
    """A DDS domain that no other task or run on this machine has: their topics stay apart."""
    for domain in _DOMAINS:
        held = reserve(domain)
        if held is not None:
            with held:
                yield domain
            return
    raise ReprocessError(f"all {len(_DOMAINS)} DDS domains are in use; use fewer --workers")


@contextmanager
def sole_use(out: Path) -> Iterator[None]:
    """Keep a second `reprocess` on this machine out of `out`."""
    out.mkdir(parents=True, exist_ok=True)
    with (out / ".lock").open("w") as claim:
        if not _lock(claim):
            raise ReprocessError(f"another reprocess works in {out}; choose another --out")
        yield


def _lock(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True  # a file system without locks, as some over a network are
    return True


def _last_words(log_file: Path, exit_code: int) -> str:
    how = f"signal {-exit_code}" if exit_code < 0 else f"exit code {exit_code}"
    lines = log_file.read_text(encoding="utf-8", errors="replace").split("\n")
    said = [line.strip() for line in lines if line.strip()]
    told = [line for line in said if line.startswith("worldsystem: ")] or said[-1:] or [""]
    return f"{how}: {told[-1].removeprefix('worldsystem: ')[:_MOST_TOLD]}".rstrip(": ")
