# SPDX-License-Identifier: Apache-2.0
"""A process that meshes region after region: Open3D holds the interpreter lock, and may crash."""

from __future__ import annotations

import logging
import multiprocessing
import os
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess

from worldsystem_mesh.methods.fields import RegionField
from worldsystem_mesh.methods.interface import RegionPoints

log = logging.getLogger(__name__)
_NICENESS = 15
_JOIN_S = 2.0


@dataclass(frozen=True, eq=False)
class MethodResult:
    """What became of a job: the region's field, or why there is none; and how long it took."""

    field: RegionField | None
    seconds: float
    problem: str = ""


class MethodWorker:
    """One job at a time; a process that dies or takes too long is replaced. One thread."""

    def __init__(self, timeout_s: float, region_blocks: int) -> None:
        self._timeout_s = timeout_s
        self._region_blocks = region_blocks
        self._process: SpawnProcess | None = None
        self._pipe: Connection | None = None
        self._sending: threading.Thread | None = None
        self._begun_s = 0.0
        self.busy = False

    def start(self, method: str, region: RegionPoints) -> None:
        """Begin a job; `busy` until `poll` gives its result.

        A thread sends it: a new process reads only once it has imported everything.
        """
        if self.busy:
            raise RuntimeError("a region is still being meshed")
        if self._process is None or not self._process.is_alive():
            self._spawn()
        assert self._pipe is not None
        job = (method, region, self._region_blocks)
        self._sending = threading.Thread(
            target=_send, args=(self._pipe, job), daemon=True, name="mesh_method_job"
        )
        self._sending.start()
        self._begun_s = time.monotonic()
        self.busy = True

    def poll(self) -> MethodResult | None:
        """The job's result once it is there, or None."""
        if not self.busy or self._pipe is None or self._process is None:
            return None
        taken_s = time.monotonic() - self._begun_s
        try:
            if self._pipe.poll():
                self.busy = False
                result: MethodResult = self._pipe.recv()
                return result
        except (EOFError, OSError):
            return self._give_up(taken_s, f"its process ended with {self._process.exitcode}")
        if not self._process.is_alive():
            return self._give_up(taken_s, f"its process ended with {self._process.exitcode}")
        if taken_s > self._timeout_s:
            return self._give_up(taken_s, f"it took longer than {self._timeout_s:g} s")
        return None

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.join(_JOIN_S)
        if self._sending is not None:  # nobody reads any more, so that it ends
            self._sending.join(_JOIN_S)
        if self._pipe is not None:
            self._pipe.close()
        self._process = self._pipe = self._sending = None
        self.busy = False

    def _give_up(self, taken_s: float, problem: str) -> MethodResult:
        self.close()
        return MethodResult(None, taken_s, problem)

    def _spawn(self) -> None:
        self.close()
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(
            target=_work, args=(theirs,), daemon=True, name="mesh_method"
        )
        self._process.start()
        theirs.close()


def _send(pipe: Connection, job: tuple[str, RegionPoints, int]) -> None:
    with suppress(OSError):  # the process has ended, as `poll` will find
        pipe.send(job)


def _work(pipe: Connection) -> None:
    """The process: takes jobs until the pipe closes."""
    from worldsystem_mesh.methods.choice import METHODS

    os.nice(_NICENESS)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)  # Open3D's Poisson prints a line for each of thousands of nodes
    while True:
        try:
            method, region, side = pipe.recv()
        except (EOFError, OSError):
            return
        begun_s = time.monotonic()
        try:
            field = RegionField.of(METHODS[method].mesh(region), side)
            result = MethodResult(field, time.monotonic() - begun_s)
        except Exception as error:  # the edge of a process: a region without quality is no disaster
            text = f"{type(error).__name__}: {error}"
            result = MethodResult(None, time.monotonic() - begun_s, text)
        pipe.send(result)
