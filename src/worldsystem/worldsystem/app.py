# SPDX-License-Identifier: Apache-2.0
"""The embedded runner: all nodes of the graph in one process, with a status line and an end."""

from __future__ import annotations

import logging
import shutil
import signal
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from geometry_msgs.msg import Point
from jaxtyping import Float
from rclpy.parameter import Parameter
from worldsystem_msgs.srv import Identify, LoadMap, QueryObjects, Reset, SaveMap, SetPrompt

from worldsystem.dds_domain import own_domain
from worldsystem.foreseen import check
from worldsystem.graph import Choice, Parameters, Stage, stages
from worldsystem.run_folder import in_its_folder
from worldsystem.simulator_process import SimulatorProcess
from worldsystem.status_line import StatusLine
from worldsystem_core.ending_signals import ended_by_signals
from worldsystem_core.errors import ServiceError, WorldSystemError
from worldsystem_core.installed import find_installed_prefix
from worldsystem_core.json_log import is_thread_of
from worldsystem_core.ros.adapters.objects import map_object
from worldsystem_core.ros.container import load_class
from worldsystem_core.ros.log_forwarding import forward_logging, logging_arguments
from worldsystem_core.ros.node_thread import NodeThread, finish_all
from worldsystem_core.ros.process import tune_process, use_dds_profile
from worldsystem_core.ros.service_call import call_service
from worldsystem_core.stale_segments import clean_stale_segments
from worldsystem_segment.query import Answer, Found

log = logging.getLogger(__name__)

_FINISH_S = 60.0
_TICK_S = 0.2
_LINK_GRACE_S = 1.0
_NEEDED = ("ingest", "slam3r", "reporter")
"""Without one of these a run makes no sense; without another it goes on, and says so."""


class App:
    """Runs a `Choice` until its source ends, its time is up, or `stop` is called."""

    composed = True

    def __init__(self, choice: Choice, *, status: bool = True) -> None:
        self.choice = choice
        self._stop = threading.Event()
        self._simulator: SimulatorProcess | None = None
        self._threads: list[NodeThread] = []
        self._line = StatusLine(enabled=status)
        self._made_folder = False
        self._missed: set[str] = set()

    def stop(self) -> None:
        """End the run in order; safe from a signal handler, and when called again."""
        self._stop.set()

    def run(self) -> Path:
        """Run to the end and return the run's folder; raises `WorldSystemError`."""
        check(self.choice, composed=self.composed)
        with own_domain() as domain:
            return self._run(domain)

    def _run(self, domain: int) -> Path:
        self.choice, self._made_folder = in_its_folder(self.choice)
        find_installed_prefix()
        tune_process()
        clean_stale_segments()
        use_dds_profile()
        rclpy.init(args=logging_arguments([]), signal_handler_options=rclpy.SignalHandlerOptions.NO)
        forward_logging(logging.WARNING)
        try:
            self._start()
        except BaseException:
            self._abandon()
            raise
        try:
            self._line.heading(self.choice, domain)
            self._wait()
        finally:
            self._end()
        self._raise_failure()
        return self.choice.out

    def _start(self) -> None:
        for stage, parameters in reversed(stages(self.choice)):
            self._threads.insert(0, started(stage, parameters))
        if self.choice.simulated:
            self._simulator = SimulatorProcess(self.choice)

    def _wait(self) -> None:
        ingest, reporter = self._node("ingest"), self._node("reporter")
        first_frame_s = None
        while not self._stop.wait(_TICK_S):
            now = time.monotonic()
            if first_frame_s is None and ingest.frames_published:
                first_frame_s = now
            self._line.show(reporter.live, self._simulator)
            if self._source_ended(ingest) or self._cannot_go_on():
                return
            if first_frame_s is not None and now - first_frame_s > self._limit_s():
                return

    def _cannot_go_on(self) -> bool:
        """Whether a stage has ended that the run needs; others that ended are told once."""
        ended = [thread.node.get_name() for thread in self._threads if thread.failure]
        for name in ended:
            if name not in _NEEDED and name not in self._missed:
                self._missed.add(name)
                text = f"{name} ended by an error; the rest goes on without it."
                self._node("reporter").notes.append(text)
                self._line.note(text)
        return any(name in _NEEDED for name in ended)

    def _limit_s(self) -> float:
        """A simulator flies its whole duration by itself; everything else is cut off."""
        return self.choice.duration_s + (30.0 if self._simulator else 0.0)

    def _source_ended(self, ingest: Any) -> bool:
        if self._simulator is not None and self._simulator.ended:
            time.sleep(_LINK_GRACE_S)
            return True
        return bool(ingest.ended.is_set())

    def _abandon(self) -> None:
        """Starting failed: take down what did start, and leave no report of no run."""
        for thread in self._threads:
            thread.stop()
            if thread.node.get_name() != "reporter":
                thread.node.hurried.set()
                thread.node.input_ended()
            thread.node.close()
        self._close()
        if self._made_folder:
            shutil.rmtree(self.choice.out, ignore_errors=True)

    def _end(self) -> None:
        self._line.end()
        if self._simulator is not None:
            self._simulator.stop()
        self._let_signals_end_waiting_only()
        self._tell_how_the_source_ended()
        finish_all(self._threads, _FINISH_S)
        self._close()

    def _let_signals_end_waiting_only(self) -> None:
        """From now on Ctrl-C cuts short what waits for people, and nothing else."""
        for thread in self._threads:
            thread.node.hurried = self._stop
        with suppress(ValueError):  # signals can only be set from the main thread
            signal.signal(signal.SIGINT, lambda *_: self.stop())

    def _close(self) -> None:
        rclpy.try_shutdown()

    def _tell_how_the_source_ended(self) -> None:
        if broken := self._where_the_source_broke():
            self._node("reporter").notes.append(f"{broken} Everything before it was processed.")
            self._line.note(broken)

    def _where_the_source_broke(self) -> str:
        summary = self._node("ingest").summary
        return str(summary.broken or "") if summary is not None else ""

    def _raise_failure(self) -> None:
        if self._simulator is not None:
            self._simulator.raise_failure()
        for thread in self._threads:
            error = thread.failure or getattr(thread.node, "error", None)
            if isinstance(error, WorldSystemError):
                raise error
            if error is not None:
                raise WorldSystemError(
                    f"{thread.name} stopped: {type(error).__name__}: {error}"
                ) from error

    def _node(self, name: str) -> Any:  # each stage has attributes of its own
        return next(t.node for t in self._threads if t.node.get_name() == name)


def run_until_interrupted(app: App) -> Path:
    """Run `app`; Ctrl-C, SIGTERM and SIGHUP end it in order, and what was received is kept."""
    with ended_by_signals(app.stop):
        return app.run()


def started(stage: Stage, parameters: Parameters) -> NodeThread:
    """The stage's node, spinning in a thread of this process."""
    overrides = [Parameter(name, value=value) for name, value in parameters.items()]
    node = load_class(stage.plugin)(parameter_overrides=overrides)
    is_thread_of("")  # it was the node's while that was made
    thread = NodeThread(node)
    thread.start()
    return thread


def ask_map_service(service: str, path: str, namespace: str) -> tuple[bool, str]:
    """Call `save_map` or `load_map` of the system that runs; whether it worked, and its words."""
    kind = SaveMap if service == "save_map" else LoadMap
    answer = call_service(kind, f"slam3r/{service}", kind.Request(path=path), namespace)
    if not answer.success:
        return False, str(answer.message)
    beside = f"segment/{service.replace('_map', '_objects')}"
    try:
        said = call_service(kind, beside, kind.Request(path=path), namespace)
        well, words = bool(said.success), str(said.message)
    except ServiceError as error:
        well, words = False, f"not its objects: {error}"
    return well or service == "load_map", f"{answer.message}; {words}"  # it need not have objects


def reset_map(namespace: str) -> tuple[bool, str]:
    """Begin the map of the system that runs anew; whether that was done, and its words."""
    answer = call_service(Reset, "slam3r/reset", Reset.Request(), namespace)
    return bool(answer.success), str(answer.message)


def ask_for_objects(
    text: str, near: Float[np.ndarray, "3"] | None, limit: int, namespace: str
) -> Answer:
    """What the system that runs answers to a query; `near` [world units] is in the world frame."""
    request = QueryObjects.Request(text=text, limit=limit, use_near=near is not None)
    if near is not None:
        request.near = Point(x=float(near[0]), y=float(near[1]), z=float(near[2]))
    answer = call_service(QueryObjects, "segment/query", request, namespace)
    distances = list(answer.distances) or [np.nan] * len(answer.objects)
    rows = zip(answer.objects, answer.scores, distances, strict=True)
    found = (Found(map_object(thing), float(s), float(d)) for thing, s, d in rows)
    return Answer(tuple(found), str(answer.message))


def set_prompt(text: str, namespace: str) -> tuple[bool, str]:
    """Set the prompt of the system that runs; whether all was understood, and what was."""
    answer = call_service(SetPrompt, "segment/set_prompt", SetPrompt.Request(text=text), namespace)
    known = ", ".join(answer.understood) or "every object"
    return bool(answer.success), str(answer.message) or f"looking for {known}"


def ask_to_identify(object_id: int, again: bool, namespace: str) -> tuple[bool, str]:
    """Ask the system that runs to have an object identified; whether it will, and its words."""
    request = Identify.Request(id=object_id, again=again)
    answer = call_service(Identify, "segment/identify", request, namespace)
    return bool(answer.success), str(answer.answer) or str(answer.message)
