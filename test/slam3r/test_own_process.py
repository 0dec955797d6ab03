# SPDX-License-Identifier: Apache-2.0
"""A back-end in a process of its own: says what it would say here, and may die."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace

import cv2
import filmed_room
import msgpack
import numpy as np
import pytest

from worldsystem_core.errors import BackendError, MapError
from worldsystem_core.process_figures import process_figures
from worldsystem_core.reconstruction import (
    Event,
    MovedKeyframes,
    NewKeyframe,
    Pose,
    RemovedKeyframes,
    ScaleState,
    Successor,
    TrackingState,
)
from worldsystem_core.telemetry import GpsFix
from worldsystem_slam3r.apart import client
from worldsystem_slam3r.apart.channel import Channel, ChannelClosed
from worldsystem_slam3r.apart.client import AHEAD, RunningApart
from worldsystem_slam3r.apart.codec import pack, unpack
from worldsystem_slam3r.apart.worker import Worker
from worldsystem_slam3r.config import Slam3rConfig
from worldsystem_slam3r.running import OF_NO_FRAME, Answer, Running, RunningHere, WorkerEnded

CAMERA = filmed_room.camera(480, 270)
POSES = filmed_room.sideways_poses(48, step=0.09)
CONFIG = Slam3rConfig(synchronous=True)


@pytest.fixture(scope="module")
def film():
    return filmed_room.frames(POSES, CAMERA)


@pytest.fixture
def apart():
    running = RunningApart(CONFIG, lambda: None)
    yield running
    running.close()


def answers_of(running: Running, frames) -> list[Answer]:
    found = []
    for frame in frames:
        found += running.feed(frame)
    return found + running.finish()


def events_of(answers: list[Answer]) -> list[Event]:
    return [event for answer in answers for event in answer.events]


def poses_of(answers: list[Answer]) -> list[Pose]:
    return [event for event in events_of(answers) if isinstance(event, Pose)]


def keyframes_of(answers: list[Answer]):
    return [e.keyframe for e in events_of(answers) if isinstance(e, NewKeyframe)]


def small(film, size=(64, 36)):
    """Pictures that a socket holds though nobody reads them."""
    return [replace(frame, rgb=cv2.resize(frame.rgb, size), camera=None) for frame in film]


def until(done, limit_s: float = 20.0) -> None:
    deadline = time.monotonic() + limit_s
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_it_says_what_the_same_back_end_says_in_this_process(film, apart):
    here, there = answers_of(RunningHere(CONFIG), film), answers_of(apart, film)
    assert [a.frame_id for a in there if a.frame_id >= 0] == [frame.id for frame in film]
    own, other = poses_of(here), poses_of(there)
    assert [p.frame_id for p in other] == [p.frame_id for p in own]
    assert any(pose.state is TrackingState.TRACKED for pose in own)
    for a, b in zip(own, other, strict=True):
        assert (a.state, a.stamp_ns, a.keyframe_id) == (b.state, b.stamp_ns, b.keyframe_id)
        np.testing.assert_array_equal(a.world_from_cam, b.world_from_cam)
    for a, b in zip(keyframes_of(here), keyframes_of(there), strict=True):
        assert (a.id, a.camera) == (b.id, b.camera)
        np.testing.assert_array_equal(a.pointmap, b.pointmap)
        np.testing.assert_array_equal(a.rgb, b.rgb)
        assert not b.pointmap.flags.writeable


def test_its_process_is_known_with_its_figures_as_soon_as_it_is_open(monkeypatch):
    """A stage that told this number with its own process's CPU time would seem to come back when
    the worker tells its own, which is less."""
    hear, heard = RunningApart._hear, []

    def hear_until_open(self: RunningApart, kind: str, item: object) -> None:
        if "reply" not in heard:
            heard.append(kind)
            hear(self, kind, item)

    monkeypatch.setattr(RunningApart, "_hear", hear_until_open)
    running = RunningApart(CONFIG, lambda: None)
    try:
        facts = running.condition().facts
        assert facts["process.pid"] == running.pid
        assert facts.keys() >= process_figures().keys()
        assert facts["process.cpu_s"] > 0
    finally:
        running.close()


def test_who_waits_for_its_process_can_tell_of_itself_meanwhile(monkeypatch):
    monkeypatch.setattr(client, "ALIVE_S", 0.02)
    beats: list[float] = []
    running = RunningApart(CONFIG, lambda: None, alive=lambda: beats.append(time.monotonic()))
    try:
        assert len(beats) >= 5, "a process needs longer than that to begin"
    finally:
        running.close()


def test_every_event_and_measurement_survives_the_way(film):
    eye = np.eye(4)
    moved = MovedKeyframes({n: n * eye for n in range(3000)}, {1: 2.0}, ScaleState.METRIC)
    pose = Pose(
        frame_id=3,
        stamp_ns=1 << 62,
        world_from_cam=eye,
        confidence=0.5,
        state=TrackingState.LOST,
        covariance=np.ones((6, 6)),
    )
    fix = GpsFix(stamp_ns=5, latitude_deg=47.0, longitude_deg=8.0, altitude_m=float("nan"))
    heir = Successor(7, 2 * eye, 1.5)
    removed = RemovedKeyframes((1, 2), {2: heir})
    sent = [moved, pose, fix, removed, film[0], MapError("no such folder")]
    header, *buffers = pack(sent)
    there = unpack(header, buffers)
    assert len(buffers) == 1  # the picture; small arrays lie in the header
    assert there[0].world_from_cam.keys() == moved.world_from_cam.keys()
    np.testing.assert_array_equal(there[0].world_from_cam[2999], 2999 * eye)
    assert (there[0].point_scale, there[0].scale) == ({1: 2.0}, ScaleState.METRIC)
    np.testing.assert_array_equal(there[1].covariance, np.ones((6, 6)))
    assert (there[1].stamp_ns, there[1].state) == (1 << 62, TrackingState.LOST)
    assert np.isnan(there[2].altitude_m)
    assert (there[3].ids, there[3].heirs) == ((1, 2), {2: 7})
    np.testing.assert_array_equal(there[3].successors[2].world_from_cam, 2 * eye)
    assert there[3].successors[2].point_scale == 1.5
    np.testing.assert_array_equal(there[4].rgb, film[0].rgb)
    assert isinstance(there[5], MapError)
    assert str(there[5]) == "no such folder"


def test_nothing_but_our_own_classes_goes_the_way():
    with pytest.raises(TypeError, match="Thread is not one of what a worker is told"):
        pack(threading.Thread())
    header = msgpack.packb(["c", "Popen", [["args", "true"]]])
    with pytest.raises(KeyError, match="Popen"):
        unpack(header, [])


def test_a_worker_that_is_killed_ends_its_frames_by_name_and_loses_none(film, apart):
    done = apart.feed(film[0]) + apart.feed(film[1])
    os.kill(apart.pid, signal.SIGKILL)
    done += apart.feed(film[2]) + apart.feed(film[3]) + apart.finish()
    assert [a.frame_id for a in done if a.frame_id >= 0] == [0, 1, 2, 3]
    assert isinstance(done[-1].failure, WorkerEnded)
    assert "exit code -9" in str(done[-1].failure)
    assert apart.waiting == 0
    with pytest.raises(WorkerEnded):
        apart.tell_again()


def test_what_came_is_told_once_and_no_more_than_a_few_frames_are_ahead(film):
    told = threading.Event()
    film = small(film)
    running = RunningApart(CONFIG, told.set)
    try:
        running.feed(film[0])
        assert told.wait(20.0)
        until(lambda: running.waiting == 0)
        assert [answer.frame_id for answer in running.answers()] == [0]
        assert running.answers() == []
        os.kill(running.pid, signal.SIGSTOP)
        for frame in film[1 : 1 + AHEAD]:
            running.feed(frame)
        held = threading.Thread(target=running.feed, args=(film[1 + AHEAD],), daemon=True)
        held.start()
        held.join(0.3)
        assert held.is_alive()
        os.kill(running.pid, signal.SIGCONT)
        held.join(20.0)
        assert not held.is_alive()
    finally:
        os.kill(running.pid, signal.SIGCONT)
        running.close()


@pytest.mark.parametrize("size", [(480, 270), (64, 36)], ids=["cannot be sent", "unanswered"])
def test_a_worker_that_hangs_is_ended_after_its_time(film, monkeypatch, size):
    monkeypatch.setattr("worldsystem_slam3r.apart.client.FRAME_S", 0.5)
    running = RunningApart(CONFIG, lambda: None)
    os.kill(running.pid, signal.SIGSTOP)
    frames = small(film[: AHEAD + 2], size)
    done = [answer for frame in frames for answer in running.feed(frame)] + running.answers()
    assert [answer.frame_id for answer in done] == [frame.id for frame in frames]
    assert all(isinstance(answer.failure, WorkerEnded) for answer in done)
    assert running.waiting == 0
    running.close()


def test_measurements_by_the_thousand_cost_no_frame(film, apart):
    done = []
    for number, frame in enumerate(film[:12]):
        done += apart.feed(frame)
        for beside in range(250):
            stamp_ns = 250 * number + beside
            apart.observe(GpsFix(stamp_ns=stamp_ns, latitude_deg=47.0, longitude_deg=8.0,
                                 altitude_m=400.0))  # fmt: skip
    done += apart.finish()
    assert [a.frame_id for a in done if a.frame_id >= 0] == [frame.id for frame in film[:12]]
    assert all(answer.failure is None for answer in done)


def test_what_cannot_run_is_refused_in_the_same_words():
    config = Slam3rConfig(backend="nonsense")
    with pytest.raises(BackendError) as here:
        RunningHere(config)
    with pytest.raises(BackendError) as there:
        RunningApart(config, lambda: None)
    assert str(there.value) == str(here.value)


def test_a_frame_out_of_order_costs_itself_alone(film, apart):
    apart.feed(film[1])
    done = apart.feed(film[0]) + apart.feed(film[2]) + apart.settle()
    failures = {answer.frame_id: answer.failure for answer in done}
    assert "feed frames in order" in str(failures[0])
    assert isinstance(failures[0], BackendError)
    assert failures[2] is None


def test_maps_are_saved_measured_and_begun_anew_over_there(film, apart, tmp_path):
    with pytest.raises(MapError, match="there is no map yet"):
        apart.map_service("save_map", str(tmp_path / "map"))
    for frame in film:
        apart.feed(frame)
    apart.observe(GpsFix(stamp_ns=1, latitude_deg=47.0, longitude_deg=8.0, altitude_m=400.0))
    apart.settle()
    assert "keyframes" in apart.map_service("save_map", str(tmp_path / "map"))
    assert (tmp_path / "map").is_dir()
    until(lambda: apart.condition().facts.get("scale") == "scene (unknown)")
    assert apart.condition().facts["process.pid"] == apart.pid
    apart.begin_anew(100)
    with pytest.raises(MapError, match="there is no map yet"):
        apart.map_service("save_map", str(tmp_path / "other"))


def test_keyframes_of_a_second_life_are_numbered_on(film):
    running = RunningApart(CONFIG, lambda: None, first_id=70)
    try:
        ids = [keyframe.id for keyframe in keyframes_of(answers_of(running, film))]
        assert ids[0] == 70
    finally:
        running.close()


def test_the_worker_ends_with_the_process_that_started_it():
    code = (
        "import os, time\n"
        "from worldsystem_slam3r.apart.client import RunningApart\n"
        "from worldsystem_slam3r.config import Slam3rConfig\n"
        "running = RunningApart(Slam3rConfig(), lambda: None)\n"
        "print(running.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    worker = int(parent.stdout.readline())
    parent.kill()
    parent.wait(10.0)
    until(lambda: not os.path.exists(f"/proc/{worker}/cwd"))


def test_the_worker_stays_in_the_runs_session_where_niceness_counts(apart):
    assert os.getsid(apart.pid) == os.getsid(0)
    assert os.getpgid(apart.pid) != os.getpgid(0)


def test_what_ends_a_runs_whole_group_is_for_the_run(film):
    """As `timeout`, or a terminal that goes away: the run ends in order, and its worker with it."""
    code = (
        "import signal, sys\n"
        "from worldsystem_slam3r.apart.client import RunningApart\n"
        "from worldsystem_slam3r.config import Slam3rConfig\n"
        "for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):\n"
        "    signal.signal(number, lambda *_: None)\n"
        "running = RunningApart(Slam3rConfig(), lambda: None)\n"
        "print(running.pid, flush=True)\n"
        "sys.stdin.readline()\n"
        "print(len(running.finish()), flush=True)\n"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    run = subprocess.Popen([sys.executable, "-c", code], start_new_session=True, **pipes)
    worker = int(run.stdout.readline())
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        os.killpg(run.pid, number)
        os.kill(worker, number)
    time.sleep(0.5)
    rest, _ = run.communicate("end\n", timeout=30.0)
    assert int(rest) >= 1, "the worker was gone"


def test_what_a_worker_told_before_its_last_reply_is_not_lost(apart, monkeypatch):
    late, call = Answer(OF_NO_FRAME), RunningApart._call

    def called(self: RunningApart, kind: str, arguments: list) -> object:
        reply = call(self, kind, arguments)
        self._hear("answer", late)  # it lay before the reply in the channel
        return reply

    monkeypatch.setattr(RunningApart, "_call", called)
    assert apart.begin_anew(5) == [late]
    assert late in apart.finish()


class Says:
    """A back-end that fails between frames, and has much to say at the end."""

    def __init__(self, last: list[Event]) -> None:
        self.last = last
        self.map_service = self.tell_again = self.begin_anew = None

    def collect(self) -> list[Answer]:
        raise ZeroDivisionError("between two frames")

    def finish(self) -> list[Answer]:
        return [Answer(OF_NO_FRAME, self.last)]


def test_what_fails_between_frames_is_told_and_ends_no_worker():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        worker = Worker(Channel(ours), Says([]), urgent=False)
        (answer,) = worker._collected()
    assert answer.frame_id == OF_NO_FRAME
    assert isinstance(answer.failure, ZeroDivisionError)


def test_the_last_words_of_a_large_map_come_in_messages_of_bounded_size():
    last = [RemovedKeyframes((number,)) for number in range(120)]
    ours, theirs = socket.socketpair()
    with ours, theirs:
        worker = Worker(Channel(ours), Says(last), urgent=False)
        worker._do("finish", [])
        told = [worker._outbox.get(0.0) for _ in range(len(worker._outbox))]
    *answers, (kind, reply) = told
    assert (kind, [answer.events for answer in reply]) == ("reply", [[]])
    assert {kind for kind, _ in answers} == {"part"}
    assert [event for _, answer in answers for event in answer.events] == last
    assert max(len(answer.events) for _, answer in answers) <= 50


def test_a_message_that_cannot_be_ours_closes_the_channel():
    ours, theirs = socket.socketpair()
    for message in (b"\xff\xff\xff\xff", b"\x00\x00\x00\x00"):
        theirs.sendall(message)
        with pytest.raises(ChannelClosed, match="cannot be ours"):
            Channel(ours).receive()
    theirs.sendall(b"\x01\x00\x00\x00" + b"\xff" * 8)
    with pytest.raises(ChannelClosed, match="cannot be ours"):
        Channel(ours).receive()
    for item in (["frame", ["c", "Popen", []]], ["frame", ["a", b"", ",", [0]]], [7, None], 7):
        header = msgpack.packb(item)
        theirs.sendall(b"\x01\x00\x00\x00" + len(header).to_bytes(8, "little") + header)
        with pytest.raises(ChannelClosed, match="cannot be ours"):
            Channel(ours).receive()
    ours.close()
    theirs.close()
