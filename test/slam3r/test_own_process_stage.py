# SPDX-License-Identifier: Apache-2.0
"""A stage whose back-end works in a process of its own, and what is asked of it."""

from __future__ import annotations

import os
import signal
from contextlib import contextmanager

import filmed_room
import pytest

from worldsystem_core.errors import ShapeChanged
from worldsystem_core.faults import MOST_FAULTS, FaultRecord
from worldsystem_core.frames import Frame
from worldsystem_slam3r.apart import client
from worldsystem_slam3r.apart.codec import pack, unpack
from worldsystem_slam3r.running import WorkerEnded


@contextmanager
def running(context, **settings):
    from rclpy.parameter import Parameter

    from worldsystem_slam3r.node import Slam3rNode

    given = {"own_process": True, "synchronous": True, **settings}
    parameters = [Parameter(name, value=value) for name, value in given.items()]
    slam3r = Slam3rNode(context=context, parameter_overrides=parameters)
    yield slam3r
    slam3r.close()


@pytest.fixture
def stage(context):
    with running(context) as slam3r:
        yield slam3r


@pytest.mark.ros
@pytest.mark.parametrize("asked", ["save", "tell again", "reset"])
def test_a_call_that_meets_a_dead_worker_is_refused_and_the_stage_goes_on(stage, asked, tmp_path):
    from std_srvs.srv import Trigger
    from worldsystem_msgs.srv import Reset, SaveMap

    film = filmed_room.frames(filmed_room.sideways_poses(24, step=0.09), filmed_room.camera())
    first = stage.worker_pid
    for frame in film[:4]:
        stage._on_frame(frame)
    os.kill(first, signal.SIGKILL)
    if asked == "save":
        request = SaveMap.Request(path=str(tmp_path / "map"))
        answer = stage._on_save(request, SaveMap.Response())
    elif asked == "tell again":
        answer = stage._on_tell_again(Trigger.Request(), Trigger.Response())
    else:
        stage._running.settle = list  # it dies between the last picture and the call
        answer = stage._on_reset(Reset.Request(), Reset.Response())
    assert not answer.success
    assert "ended (exit code -9)" in answer.message
    assert stage.worker_pid != first
    for frame in film[4:]:
        stage._on_frame(frame)
    stage.input_ended()
    state = stage.ledger.state()
    assert (state.taken, state.in_flight, stage.ledger.violations) == (len(film), 0, 0)
    assert state.used >= len(film) - 4
    assert stage._trajectory.keyframe_ids


@pytest.mark.ros
def test_a_stage_that_went_on_in_its_map_says_it_is_lost_until_it_knows_where(context, tmp_path):
    """Else silence would look like tracking: poses come again once a place is recognised."""
    from std_srvs.srv import Trigger
    from worldsystem_msgs.srv import SaveMap

    there = filmed_room.sideways_poses(40, step=0.09)
    film = filmed_room.frames([*there, *there[::-1]], filmed_room.camera())
    with running(context, map=str(tmp_path / "map"), map_every_s=60.0) as stage:
        for frame in film[:40]:
            stage._on_frame(frame)
        stage._take(stage._running.settle())
        assert stage._on_save(SaveMap.Request(), SaveMap.Response()).success
        assert not stage.problem()
        os.kill(stage.worker_pid, signal.SIGKILL)
        stage._on_tell_again(Trigger.Request(), Trigger.Response())
        assert stage.problem() == "tracking is lost"
        assert stage.facts()["state"] == "lost"
        for frame in film[40:]:
            stage._on_frame(frame)
        stage.input_ended()
        assert stage.facts()["state"] == "tracked"
        assert not stage.problem()


def feed(stage, film: list[Frame]) -> None:
    for frame in film:
        stage._on_frame(frame)


def dying_as_they_open(monkeypatch, how_many: int) -> list[int]:
    """So many of the next processes are killed before they have opened anything, as by a system
    that has no memory left; their ids."""
    killed: list[int] = []

    class Dying(client.WorkerProcess):
        def __init__(self, patience_s: float) -> None:
            super().__init__(patience_s)
            if len(killed) < how_many:
                killed.append(self.pid)
                self.kill()

    monkeypatch.setattr(client, "WorkerProcess", Dying)
    return killed


@pytest.mark.ros
@pytest.mark.parametrize("met", ["a picture", "a call"])
def test_a_worker_that_dies_as_it_opens_is_followed_by_another(context, monkeypatch, met):
    from std_srvs.srv import Trigger

    film = filmed_room.frames(filmed_room.sideways_poses(24, step=0.09), filmed_room.camera())
    with running(context, spare_process=False) as stage:
        for frame in film[:2]:
            stage._on_frame(frame)
        stage._take(stage._running.settle())
        killed = dying_as_they_open(monkeypatch, 2)
        os.kill(stage.worker_pid, signal.SIGKILL)
        if met == "a call":
            answer = stage._on_tell_again(Trigger.Request(), Trigger.Response())
            assert "ended (exit code -9)" in answer.message
        for frame in film[2:]:
            stage._on_frame(frame)
        stage.input_ended()
        assert len(killed) == 2
        assert stage.worker_pid not in killed
        assert stage.faults.total == 3
        state = stage.ledger.state()
        assert (state.taken, state.in_flight, stage.ledger.violations) == (len(film), 0, 0)
        assert stage._trajectory.keyframe_ids


@pytest.mark.ros
def test_workers_that_all_die_as_they_open_end_the_stage(context, monkeypatch):
    film = filmed_room.frames(filmed_room.sideways_poses(24), filmed_room.camera())
    with running(context, spare_process=False) as stage:
        stage.faults = FaultRecord(clock=lambda: 0.0)  # however long each takes to die
        dying_as_they_open(monkeypatch, len(film))
        os.kill(stage.worker_pid, signal.SIGKILL)
        with pytest.raises(WorkerEnded, match="exit code -9"):
            feed(stage, film)
        assert stage.faults.total == MOST_FAULTS + 1


def test_an_error_comes_as_it_was_raised():
    header, *buffers = pack(ShapeChanged("the picture's shape changed"))
    there = unpack(header, buffers)
    assert type(there) is ShapeChanged
    assert str(there) == "the picture's shape changed"
