# SPDX-License-Identifier: Apache-2.0
"""The stage's side of a back-end in a process of its own (`Running`)."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from worldsystem_core.frames import Frame
from worldsystem_core.telemetry import Telemetry
from worldsystem_slam3r.apart.channel import ChannelClosed
from worldsystem_slam3r.apart.process import Reserve, WorkerProcess
from worldsystem_slam3r.config import Slam3rConfig
from worldsystem_slam3r.running import OF_NO_FRAME, Answer, Condition, WorkerEnded

log = logging.getLogger(__name__)

AHEAD = 4
"""Frames that the worker may have at once: the one it works on, and as many as it gets through
while this process, where many threads share an interpreter, is slow to hand it the next."""
FRAME_S, CALL_S, END_S = 120.0, 600.0, 10.0
"""How long a frame's answer, a call's reply and the process's end are waited for."""
ALIVE_S = 0.5


class RunningApart:
    """Frames go to the worker while it is at the one before; answers come when they come.

    `told` is called from another thread when an answer came. When the worker has died, the frames
    that it had, and all that are fed later, are answered with `WorkerEnded`; calls raise it.
    While a call takes its time, as to load a map does, `alive` is called now and then. `process` is
    one in reserve that is to be the worker, if there is one.
    """

    def __init__(
        self,
        config: Slam3rConfig,
        told: Callable[[], None],
        first_id: int = 0,
        process: WorkerProcess | None = None,
        alive: Callable[[], None] = lambda: None,
    ) -> None:
        self._told = told
        self._alive = alive
        self._changed = threading.Condition()
        self._fed: deque[int] = deque()
        self._answers: deque[Answer] = deque()
        self._replies: deque[Any] = deque()
        self._parts: list[Answer] = []
        self._gone = ""
        self._process = process or WorkerProcess(FRAME_S)
        self._channel = self._process.channel
        self._condition = Condition()  # it tells its figures before it is open
        self._listener = threading.Thread(target=self._listen, name="slam3r/worker", daemon=True)
        self._listener.start()
        config = replace(config, own_process=False)
        level = logging.getLogger().getEffectiveLevel()
        try:
            opened = self._call("open", [config, first_id, level])
            self.name, self.note, self.has_graph = opened
        except BaseException:
            self.close()
            raise

    @property
    def pid(self) -> int | None:
        return self._process.pid

    @property
    def waiting(self) -> int:
        return len(self._fed)

    def feed(self, frame: Frame) -> list[Answer]:
        """Give the frame to the worker once it has fewer than `AHEAD`."""
        self._wait(lambda: len(self._fed) < AHEAD, FRAME_S, "answered a frame")
        with self._changed:
            if self._gone:
                self._answers.append(Answer(frame.id, failure=WorkerEnded(self._gone)))
            else:
                self._fed.append(frame.id)
        self._send("frame", frame)
        return self.answers()

    def answers(self) -> list[Answer]:
        with self._changed:
            found = list(self._answers)
            self._answers.clear()
        return found

    def settle(self) -> list[Answer]:
        self._wait(lambda: not self._fed, FRAME_S, "answered all frames")
        return self.answers()

    def finish(self) -> list[Answer]:
        """As `Running` says; a worker that has died has nothing more to tell."""
        due = self.settle()
        try:
            end = self._call("finish", [])  # its parts came before, and what it told of itself
            return [*due, *self.answers(), *self._parts, *end]
        except WorkerEnded as ended:
            log.error("%s; what it held back is lost", ended)
            return [*due, *self.answers(), *self._parts]

    def observe(self, sample: Telemetry) -> None:
        if self.has_graph and not self._gone:
            self._send("observe", sample)

    def map_service(self, what: str, place: str) -> str:
        return str(self._call("map_service", [what, place]))

    def tell_again(self) -> str:
        return str(self._call("tell_again", []))

    def begin_anew(self, next_id: int) -> list[Answer]:
        self._call("begin_anew", [next_id])
        return self.answers()

    def condition(self) -> Condition:
        return self._condition

    def close(self) -> None:
        """Close the channel, which ends the worker; one that does not end is killed."""
        self._process.close()
        self._listener.join(END_S)

    def _send(self, kind: str, item: Any) -> None:
        try:
            self._channel.send(kind, item)
        except ChannelClosed:
            self._process.kill()  # where it does not end by itself, it hangs
            self._listener.join(END_S)  # it answers what was fed, and says why

    def _call(self, kind: str, arguments: list[Any]) -> Any:
        """Have the worker do something, and wait for its reply; its error is raised here."""
        self._send(kind, arguments)
        self._wait(lambda: bool(self._replies), CALL_S, f"answered '{kind}'", self._alive)
        with self._changed:
            if not self._replies:
                raise WorkerEnded(self._gone)
            reply = self._replies.popleft()
        if isinstance(reply, Exception):
            raise reply
        return reply

    def _wait(
        self,
        ready: Callable[[], bool],
        limit_s: float,
        what: str,
        alive: Callable[[], None] = lambda: None,
    ) -> None:
        """Until `ready` or the worker is gone; one that takes too long is killed."""
        end_s = time.monotonic() + limit_s
        while (left_s := end_s - time.monotonic()) > 0:
            with self._changed:
                if self._changed.wait_for(
                    lambda: ready() or bool(self._gone), min(left_s, ALIVE_S)
                ):
                    return
            alive()
        with self._changed:
            self._gone = f"the reconstruction's process had not {what} after {limit_s:.0f} s"
        self._process.kill()
        self._listener.join(END_S)

    def _listen(self) -> None:
        """In a thread: take what the worker says until it says nothing more."""
        try:
            while True:
                self._hear(*self._channel.receive())
        except ChannelClosed:
            self._end()

    def _hear(self, kind: str, item: Any) -> None:
        if kind == "log":
            name, level, text = item
            logging.getLogger(name).log(level, "%s", text)
        elif kind == "condition":
            self._condition = item
        elif kind != "loaded":  # which one in reserve says before anything is asked of it
            with self._changed:
                if kind == "answer":
                    if item.frame_id != OF_NO_FRAME:
                        self._fed.popleft()
                    self._answers.append(item)
                elif kind == "part":
                    self._parts.append(item)
                else:
                    self._replies.append(item)
                self._changed.notify_all()
            if kind == "answer":
                self._told()

    def _end(self) -> None:
        code = self._process.wait(END_S)
        ended = "none yet" if code is None else code
        with self._changed:
            self._gone = self._gone or f"the reconstruction's process ended (exit code {ended})"
            failure = WorkerEnded(self._gone)
            self._answers.extend(Answer(frame, failure=failure) for frame in self._fed)
            self._fed.clear()
            self._changed.notify_all()
        self._told()


def reserve(name: str) -> Reserve:
    """Keeps a process in reserve that has loaded back-end `name`."""
    return Reserve(name, FRAME_S)
