# SPDX-License-Identifier: Apache-2.0
"""Where tasks run: beside each other on this machine, or on Ray, here or in a cluster."""

from __future__ import annotations

import logging
import math
import os
import secrets
import signal
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from worldsystem.reprocess.plan import ReprocessError, Task, task_from_json, task_to_json
from worldsystem.reprocess.task import Outcome, perform

log = logging.getLogger(__name__)

INSTALL = "`pip install -r tools/requirements-reprocess.txt -c tools/constraints.txt`"
_POLL_S = 1.0
_GOING_S = 20.0
_TOKEN = "one with a token needs RAY_AUTH_MODE=token and RAY_AUTH_TOKEN or its file here, too"
_LOOPBACK: dict[str, Any] = {"_node_ip_address": "127.0.0.1"}


@dataclass(frozen=True)
class Room:
    """How much may be used: runs at once, cores and GPUs for each; `address` of a Ray cluster."""

    workers: int
    cpus: float
    gpus: float = 0.0
    address: str = ""


Outcomes = Generator[Outcome, None, None]
Perform = Callable[[list[Task], Room, Path], Outcomes]


def chosen_pool(address: str, ray: str) -> Perform:
    """Ray where it is installed or asked for, else processes of our own."""
    wanted = bool(address) or ray == "yes"
    if find_spec("ray") is None:
        if wanted:
            raise ReprocessError(f"Ray is not installed; run {INSTALL}")
        return on_this_machine
    return on_this_machine if ray == "no" and not address else on_ray


def on_this_machine(tasks: list[Task], room: Room, stopped: Path) -> Outcomes:
    """Outcomes as they come, of at most `room.workers` runs at once."""
    if room.gpus:
        raise ReprocessError(
            f"--gpus shares out GPUs through Ray alone; run {INSTALL}, or leave it out and let "
            "--workers say how many runs the GPUs bear at once"
        )
    with ThreadPoolExecutor(room.workers, thread_name_prefix="reprocess") as threads:
        try:
            futures = [threads.submit(_perform_unless, task, stopped) for task in tasks]
            for future in as_completed(futures):
                yield future.result()
        except BaseException:
            threads.shutdown(wait=False, cancel_futures=True)
            stopped.touch()
            raise


def on_ray(tasks: list[Task], room: Room, stopped: Path) -> Outcomes:
    """As `on_this_machine`, placed by Ray; a task whose machine is lost is tried again."""
    ray = _begun(room)
    try:
        check_that_one_fits(room, [node["Resources"] for node in ray.nodes() if node["Alive"]])
    except ReprocessError:
        ray.shutdown()
        raise
    far = ray.remote(num_cpus=room.cpus, num_gpus=room.gpus, max_retries=2)(_perform_far)
    waiting = list(reversed(tasks))
    going: dict[Any, Task] = {}  # by Ray's references
    try:
        while waiting or going:
            while waiting and len(going) < room.workers:
                task = waiting.pop()
                going[far.remote(task_to_json(task), str(stopped))] = task
            for done in ray.wait(list(going), timeout=_POLL_S)[0]:
                yield _outcome(ray, done, going.pop(done))
    except BaseException:
        stopped.touch()
        ray.wait(list(going), num_returns=len(going), timeout=_GOING_S)
        raise
    finally:
        ray.shutdown()


def check_that_one_fits(room: Room, machines: list[dict[str, float]]) -> None:
    """Ray waits for ever for a machine that is large enough: here none will come, to a cluster one
    may."""
    for machine in machines:
        if machine.get("CPU", 0.0) >= room.cpus and machine.get("GPU", 0.0) >= room.gpus:
            return
    text = f"no machine has the {room.cpus:g} cores and {room.gpus:g} GPUs of one run"
    if not room.address:
        raise ReprocessError(f"{text}; ask for less with --cpus and --gpus")
    log.warning("%s now; they wait until one joins, or Ctrl-C", text)


def _begun(room: Room) -> Any:  # a module without types
    """Ray, connected to the cluster, or begun on this machine alone so that nobody can join.

    Its variables are read while it is imported.
    """
    os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"  # else a run without --gpus sees none
    if not room.address:  # its ports are open to every network
        os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    at_sigterm = signal.getsignal(signal.SIGTERM)
    import ray

    quiet = {"logging_level": "ERROR", "log_to_driver": False}
    try:
        if room.address:
            ray.init(address=room.address, **quiet)
        else:
            cores = max(1, math.ceil(room.workers * room.cpus))
            ray.init("local", include_dashboard=False, num_cpus=cores, **_LOOPBACK, **quiet)
    except (ConnectionError, RuntimeError, ValueError) as error:
        where = f"no Ray cluster at {room.address} ({_TOKEN})" if room.address else "Ray"
        raise ReprocessError(f"{where}: {str(error).strip()}") from error
    finally:
        signal.signal(signal.SIGTERM, at_sigterm)  # Ray takes it for itself, to exit at once
    return ray


def _outcome(ray: Any, reference: Any, task: Task) -> Outcome:
    try:
        outcome = ray.get(reference)
    except ray.exceptions.RayError as error:
        problem = f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"
        return Outcome(task.name, "failed", str(task.folder), problem=problem)
    return Outcome(**outcome)


def _perform_far(task: str, stopped: str) -> dict[str, Any]:
    """On whatever machine Ray has chosen; plain types, so that versions may differ."""
    return vars(_perform_unless(task_from_json(task), Path(stopped)))


def _perform_unless(task: Task, stopped: Path) -> Outcome:
    if stopped.exists():
        return Outcome(task.name, "interrupted", str(task.folder))
    return perform(task, stopped)
