# SPDX-License-Identifier: Apache-2.0
"""The process in which a back-end works; started by `process`, it ends when the stage goes away."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

from worldsystem_core.child_process import name_process
from worldsystem_core.errors import WorldSystemError
from worldsystem_core.frames import Frame
from worldsystem_core.freed_memory import hand_back_freed_memory
from worldsystem_core.handoff import Handoff
from worldsystem_core.interpreter import share_interpreter
from worldsystem_core.priority import make_urgent
from worldsystem_core.process_figures import process_figures
from worldsystem_slam3r.apart.channel import Channel, ChannelClosed
from worldsystem_slam3r.backend import load_backend
from worldsystem_slam3r.config import Slam3rConfig
from worldsystem_slam3r.running import OF_NO_FRAME, Answer, Condition, RunningHere

CONDITION_S = 0.5
"""How often the stage is told how the back-end is."""
LOOK_S = 0.05
"""How often an idle back-end is asked whether something became known."""
QUEUE = 64
"""More than the pictures and calls that the stage has on their way at once: none is let go here."""
MEASURED, WAIT_S = 256, 1.0
"""Measurements that wait for the picture at hand: a phone tells 60 a second."""
TOLD_TOGETHER = 50
"""Events of one message at the end, when all that a loaded map has left to tell goes out."""
TOLD = 32
"""What waits to be told: where the stage is slow to listen, pictures are worked on meanwhile."""


class _ToStage(logging.Handler):
    """Hands log records to the stage's process, which logs them as its own."""

    def __init__(self, channel: Channel) -> None:
        super().__init__()
        self._channel = channel

    def emit(self, record: logging.LogRecord) -> None:
        with suppress(ChannelClosed):  # nobody is left to read it
            self._channel.send("log", [record.name, record.levelno, self.format(record)])


class Worker:
    """Works off what the stage asks, in order. Pictures that wait are urgent (`priority`), unless
    the same result is wanted each time (`synchronous`, as for files)."""

    def __init__(self, channel: Channel, running: RunningHere, *, urgent: bool) -> None:
        self._channel = channel
        self._running = running
        self._told_s = 0.0
        self._inbox: Handoff[tuple[str, Any]] = Handoff(QUEUE)
        if urgent:
            make_urgent(self._inbox)
        self._measured: Handoff[Any] = Handoff(MEASURED)
        self._outbox: Handoff[tuple[str, Any]] = Handoff(TOLD)
        self._calls: dict[str, Callable[..., Any]] = {
            "map_service": running.map_service,
            "tell_again": running.tell_again,
            "begin_anew": running.begin_anew,
            "finish": self._finish,
        }

    def run(self) -> None:
        """Until the stage closes the channel, or its process ends: `_listen` ends this one then."""
        threading.Thread(target=self._listen, name="stage", daemon=True).start()
        threading.Thread(target=self._send, name="answers", daemon=True).start()
        while not (self._inbox.closed and not len(self._inbox)):
            message = self._inbox.get(timeout_s=LOOK_S)
            for answer in self._collected():
                self._tell("answer", answer)
            while (sample := self._measured.get(0.0)) is not None:
                self._running.observe(sample)
            if message is not None:
                self._do(*message)
            self._tell_condition()

    def _listen(self) -> None:
        while True:
            try:
                kind, item = self._channel.receive()
            except ChannelClosed:
                os._exit(0)  # whatever is being worked on, nobody wants it
            if kind != "observe":
                self._inbox.put((kind, item))
                continue
            while not self._measured.put_waiting(item, WAIT_S):
                continue  # the stage waits too, and lets go of what is too much, counted

    def _do(self, kind: str, item: Any) -> None:
        if kind == "frame":
            self._tell("answer", self._answer(item))
        else:
            self._tell("reply", self._reply(kind, item))

    def _collected(self) -> list[Answer]:
        try:
            return self._running.collect()
        except Exception as error:  # the edge, as for a frame
            return [_failed(OF_NO_FRAME, error)]

    def _answer(self, frame: Frame) -> Answer:
        try:
            (answer,) = self._running.feed(frame)
        except Exception as error:  # the edge: the stage decides what comes of it
            return _failed(frame.id, error)
        return answer

    def _finish(self) -> list[Answer]:
        """A large map's last words go as many messages: none may be of any size."""
        for answer in self._running.finish():
            for first in range(0, len(answer.events), TOLD_TOGETHER):
                some = answer.events[first : first + TOLD_TOGETHER]
                self._tell("part", replace(answer, events=some))
        return [Answer(OF_NO_FRAME)]

    def _reply(self, kind: str, arguments: list[Any]) -> Any:
        try:
            return self._calls[kind](*arguments)
        except Exception as error:  # the same edge
            return error

    def _tell_condition(self) -> None:
        now_s = time.monotonic()
        if now_s - self._told_s >= CONDITION_S:
            self._told_s = now_s
            self._tell("condition", _condition_of(self._running))

    def _tell(self, kind: str, item: Any) -> None:
        while not self._outbox.put_waiting((kind, item), WAIT_S):
            continue  # a stage that takes nothing kills this process in the end

    def _send(self) -> None:
        try:
            while True:
                if (told := self._outbox.get(timeout_s=WAIT_S)) is not None:
                    self._channel.send(*told)
        except ChannelClosed:
            return  # the listening thread sees it too, and ends the process
        except Exception:  # the edge: without this thread the stage would wait for ever
            logging.getLogger(__name__).exception("an answer could not be told")
            os._exit(1)


def _condition_of(running: RunningHere) -> Condition:
    """With what this process has used."""
    condition = running.condition()
    return replace(condition, facts=condition.facts | process_figures())


def _failed(frame_id: int, error: Exception) -> Answer:
    if not isinstance(error, WorldSystemError):
        logging.getLogger(__name__).error("frame %d failed", frame_id, exc_info=error)
    return Answer(frame_id, failure=error)


def main() -> None:
    """Open the back-end that the stage asks for and work until it goes away."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # for the stage, which ends us
        signal.signal(number, signal.SIG_IGN)
    share_interpreter()
    hand_back_freed_memory()
    channel = Channel(socket.socket(fileno=int(sys.argv[1])))
    with suppress(ChannelClosed):  # the stage is gone, and nothing was begun
        config, first_id, level = _asked(channel)
        _work(channel, config, first_id, level)


def _asked(channel: Channel) -> tuple[Slam3rConfig, int, int]:
    """What is to be opened; one that is in reserve loads that first, and is told later."""
    name_process("slam3r_reserve")
    kind, item = channel.receive()
    while kind == "load":
        try:
            load_backend(item)
        except Exception as error:  # the edge: whoever opens it meets it again, and tells
            logging.getLogger(__name__).info("not loaded in reserve: %s", error)
        channel.send("loaded")
        kind, item = channel.receive()
    name_process("slam3r_worker")
    config, first_id, level = item
    return config, first_id, level


def _work(channel: Channel, config: Slam3rConfig, first_id: int, level: int) -> None:
    """Until the stage closes the channel."""
    root = logging.getLogger()
    root.handlers, root.level = [_ToStage(channel)], level
    try:
        running = RunningHere(config, first_id)
    except Exception as error:  # the edge: the stage tells the person
        channel.send("reply", error)
        return
    # told of first, or the stage would tell its own process's figures beside this one's number
    channel.send("condition", _condition_of(running))
    channel.send("reply", [running.name, running.note, running.has_graph])
    Worker(channel, running, urgent=not config.synchronous).run()


if __name__ == "__main__":
    main()
