# SPDX-License-Identifier: Apache-2.0
"""A worker goes on while its stage, whose process is busy, is slow to listen."""

from __future__ import annotations

import socket
import threading
import time
from dataclasses import replace

import filmed_room
import numpy as np
import pytest

from worldsystem_core.reconstruction import Pose, TrackingState
from worldsystem_slam3r.apart.channel import Channel
from worldsystem_slam3r.apart.worker import TOLD, Worker
from worldsystem_slam3r.config import Slam3rConfig
from worldsystem_slam3r.running import Answer, RunningHere

FRAMES = 6
BIG = np.zeros((1 << 20, 4))
"""More than a socket holds (32 MB)."""


class _Telling:
    """A back-end that says much of each picture, and notes that it has worked on it."""

    def __init__(self) -> None:
        self._running = RunningHere(Slam3rConfig(synchronous=True))
        self.fed: list[int] = []

    def feed(self, frame):
        self.fed.append(frame.id)
        pose = Pose(frame.id, frame.stamp_ns, BIG, 1.0, TrackingState.TRACKED, -1)
        return [Answer(frame.id, [pose])]

    def collect(self):
        return []

    def __getattr__(self, name):
        return getattr(self._running, name)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_pictures_are_worked_on_while_nobody_listens_to_what_is_said_of_them(monkeypatch):
    """Held up by the first answer that waits to be sent, only one picture would be done."""
    assert FRAMES < TOLD
    ended: list[threading.Thread] = []

    def end(code: int) -> None:
        ended.append(threading.current_thread())
        raise SystemExit(code)  # the listening thread alone, not the process of this test

    monkeypatch.setattr("worldsystem_slam3r.apart.worker.os._exit", end)
    ours, theirs = socket.socketpair()
    stage, running = Channel(ours), _Telling()
    threading.Thread(target=Worker(Channel(theirs), running, urgent=True).run, daemon=True).start()
    film = filmed_room.frames(filmed_room.sideways_poses(FRAMES), filmed_room.camera(64, 36))
    for number, frame in enumerate(film):
        stage.send("frame", replace(frame, id=number))
    deadline = time.monotonic() + 10.0
    while len(running.fed) < FRAMES and time.monotonic() < deadline:
        time.sleep(0.02)
    assert running.fed == list(range(FRAMES))
    answered: list[int] = []
    while len(answered) < FRAMES:
        kind, item = stage.receive()
        answered += [item.frame_id] if kind == "answer" else []
    assert answered == list(range(FRAMES)), "in order"
    stage.close()
    deadline = time.monotonic() + 10.0
    while not ended and time.monotonic() < deadline:
        time.sleep(0.02)
    ended[0].join(10.0)
