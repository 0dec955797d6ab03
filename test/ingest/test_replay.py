# SPDX-License-Identifier: Apache-2.0
"""A recording is played as it was, in part, at another pace, or again, without losing a picture."""

from __future__ import annotations

import hashlib
import itertools
import random
import threading
import time
from pathlib import Path

import bag_lab
import numpy as np
import pytest
from bag_lab import write_ros2
from ingest_lab import MemorySink, number_in, wait_until, write_video

from worldsystem_core.errors import SourceError
from worldsystem_ingest.config import IngestConfig
from worldsystem_ingest.source import open_source


def played(path: Path, **settings) -> MemorySink:
    sink = MemorySink()
    open_source(str(path), IngestConfig(**settings)).run(sink, threading.Event())
    return sink


@pytest.fixture
def video(tmp_path) -> Path:
    """Fifty numbered pictures, 25 a second."""
    return write_video(tmp_path / "film.mp4", 50)


def test_only_the_part_that_was_asked_for_is_handed_on(video):
    sink = played(video, start_s=0.5, play_s=1.0)
    numbers = [number_in(frame.rgb) for frame in sink.frames]
    assert numbers == list(range(13, 38))
    assert sink.ids == numbers
    before = [frame_id for frame_id, reason in sink.drops if reason == "outside" and frame_id < 13]
    assert before == list(range(13))


@pytest.mark.parametrize("realtime", [False, True])
@pytest.mark.parametrize("speed", [2.0, 8.0])
def test_the_pace_is_what_was_asked_for_and_stamps_stay_the_recordings(video, speed, realtime):
    begin = time.monotonic()
    sink = played(video, speed=speed, realtime=realtime)
    took_s = time.monotonic() - begin
    assert took_s >= 0.98 * (49 / 25) / speed
    assert [frame.stamp_ns for frame in sink.frames] == [round(n * 1e9 / 25) for n in range(50)]


def test_at_the_pace_of_now_stamps_are_host_times(video):
    """Whichever part is played: stages that are begun anew tell by them what was before."""
    behind_s: list[float] = []
    sink = MemorySink(on_frame=lambda frame: behind_s.append(time.time() - frame.stamp_ns / 1e9))
    settings = IngestConfig(realtime=True, start_s=1.5)
    open_source(str(video), settings).run(sink, threading.Event())
    assert len(behind_s) == 12
    assert max(abs(np.array(behind_s))) < 1.5


def test_a_recording_by_a_clock_that_is_ahead_is_played_at_the_pace_of_now_too(tmp_path):
    ahead_ns = time.time_ns() + 7 * 3600 * 10**9
    messages = bag_lab.pictures(6)
    for number, (*_, image) in enumerate(messages):
        image.header.stamp = bag_lab.stamp(ahead_ns + number * 10**8)
    bag = write_ros2(tmp_path / "ahead", messages)
    behind_s: list[float] = []
    sink = MemorySink(on_frame=lambda frame: behind_s.append(time.time() - frame.stamp_ns / 1e9))
    settings = IngestConfig(realtime=True, start_s=0.1)
    open_source(str(bag), settings).run(sink, threading.Event())
    assert len(behind_s) == 5
    assert max(abs(np.array(behind_s))) < 1.5


def test_a_slow_stage_is_waited_for_at_any_pace(video):
    sink = MemorySink(on_frame=lambda frame: time.sleep(0.005))
    open_source(str(video), IngestConfig(speed=100.0)).run(sink, threading.Event())
    assert sink.ids == list(range(50))


def test_a_loop_goes_on_counting_as_if_the_recording_went_on(video):
    sink, stop = MemorySink(), threading.Event()
    source = open_source(str(video), IngestConfig(loop=True))
    thread = threading.Thread(target=source.run, args=(sink, stop))
    thread.start()
    wait_until(lambda: len(sink.frames) > 120)
    stop.set()
    thread.join(5.0)
    assert not thread.is_alive()
    numbers = [number_in(frame.rgb) for frame in sink.frames]
    assert numbers[:120] == [n % 50 for n in range(120)]
    assert sink.ids[:120] == list(range(120))
    stamps = [frame.stamp_ns for frame in sink.frames]
    assert all(b > a for a, b in itertools.pairwise(stamps))
    assert sorted({unit.id for unit in sink.units})[:120] == list(range(120))


def test_what_lies_before_the_part_is_passed_over_at_once_at_the_recordings_pace_as_well(video):
    came_s: list[float] = []
    sink = MemorySink(on_frame=lambda frame: came_s.append(time.monotonic()))
    begin = time.monotonic()
    open_source(str(video), IngestConfig(realtime=True, start_s=1.5)).run(sink, threading.Event())
    assert sink.ids == list(range(38, 50))
    assert came_s[0] - begin < 1.5
    assert came_s[-1] - came_s[0] >= 0.98 * 11 / 25


@pytest.mark.parametrize("part", [{}, {"play_s": 0.2}])
def test_rounds_at_the_recordings_pace_follow_each_other_without_gaps(tmp_path, part):
    clip = write_video(tmp_path / "clip.mp4", 10)
    sink, stop = MemorySink(), threading.Event()
    source = open_source(str(clip), IngestConfig(realtime=True, loop=True, **part))
    thread = threading.Thread(target=source.run, args=(sink, stop))
    begin = time.monotonic()
    thread.start()
    try:
        wait_until(lambda: len(sink.frames) >= 40)
        took_s = time.monotonic() - begin
    finally:
        stop.set()
        thread.join(5.0)
    assert not thread.is_alive()
    steps_ns = np.diff([frame.stamp_ns for frame in sink.frames[:40]])
    assert steps_ns.min() > 0
    assert steps_ns.max() < 250_000_000  # what `play_s` leaves out of a round is a gap of 0.2 s
    assert took_s >= 0.98 * 30 / 25  # 40 pictures less one a round, at 25 Hz


def test_stop_ends_a_slow_replay_at_once(video):
    sink, stop = MemorySink(), threading.Event()
    source = open_source(str(video), IngestConfig(speed=0.01))
    thread = threading.Thread(target=source.run, args=(sink, stop))
    thread.start()
    wait_until(lambda: sink.frames)
    stop.set()
    thread.join(2.0)
    assert not thread.is_alive()


def test_a_recording_whose_stamps_begin_at_zero_keeps_them(tmp_path):
    """As our own recording of a video file does."""
    messages = bag_lab.pictures(4)
    for number, (*_, image) in enumerate(messages):
        image.header.stamp = bag_lab.stamp(number * 40_000_000)
    sink = played(write_ros2(tmp_path / "run", messages))
    assert [frame.stamp_ns for frame in sink.frames] == [n * 40_000_000 for n in range(4)]


def test_what_is_live_cannot_be_played_again():
    with pytest.raises(SourceError, match="only files, folders and bags"):
        open_source("server:", IngestConfig(speed=2.0))


@pytest.mark.parametrize("speed", [0.0, 10.0])
def test_what_is_handed_on_does_not_depend_on_the_pace_or_on_how_busy_the_stages_are(
    tmp_path, speed
):
    bag = write_ros2(tmp_path / "run", [*bag_lab.video(25), *bag_lab_telemetry()])
    rng = random.Random(round(speed))

    def digest(sink: MemorySink) -> str:
        parts = [(f.id, f.stamp_ns, f.rgb.tobytes()) for f in sink.frames]
        parts += [(u.id, u.stamp_ns, u.data) for u in sink.units]
        parts += [(repr(s), 0, b"") for s, _ in sink.telemetry]
        return hashlib.sha256(repr(parts).encode()).hexdigest()

    def busy(frame):
        time.sleep(rng.choice([0.0, 0.0, 0.01]))

    sink = MemorySink(on_frame=busy)
    open_source(str(bag), IngestConfig(speed=speed)).run(sink, threading.Event())
    assert len(sink.telemetry) == 3
    assert digest(sink) == digest(played(bag))


def test_only_the_topics_that_were_asked_for_are_played(tmp_path):
    bag = write_ros2(tmp_path / "run", [*bag_lab.video(5), *bag_lab_telemetry()])
    sink = played(bag, topics="^/camera/")
    assert (len(sink.frames), len(sink.telemetry)) == (5, 0)
    assert len(played(bag, topics="video|imu").telemetry) == 3
    with pytest.raises(SourceError, match="no topic of pictures is among `topics` '/imu'"):
        played(bag, topics="/imu")
    with pytest.raises(SourceError, match="no regular expression"):
        played(bag, topics="[")


AFTER_BOOT_NS = 100 * 10**9


@pytest.mark.parametrize("pictures_from_ns", [bag_lab.START_NS, AFTER_BOOT_NS])
@pytest.mark.parametrize(
    "settings", [{"realtime": True}, {"play_s": 10.0}, {"realtime": True, "play_s": 10.0}]
)
def test_measurements_by_another_clock_say_nothing_of_the_pictures_time(
    tmp_path, settings, pictures_from_ns
):
    """One clock tells the date, the other counts from its boot; the IMU comes first, and again."""
    imu_ns = {bag_lab.START_NS: AFTER_BOOT_NS, AFTER_BOOT_NS: bag_lab.START_NS}[pictures_from_ns]
    messages = bag_lab.pictures(8)
    for number, (*_, image) in enumerate(messages):
        image.header.stamp = bag_lab.stamp(pictures_from_ns + number * bag_lab.STEP_NS)
    messages.insert(4, imu_message(imu_ns + 2, bag_lab.stamp_of(3) + 1))
    messages.insert(0, imu_message(imu_ns, bag_lab.START_NS - 1))
    source = open_source(str(write_ros2(tmp_path / "run", messages)), IngestConfig(**settings))
    sink, stop = MemorySink(), threading.Event()
    patience = threading.Timer(2.0, stop.set)
    patience.start()
    summary = source.run(sink, stop)
    patience.cancel()
    assert (summary.frames, summary.broken) == (8, None)
    assert sink.ids == list(range(8))
    assert not stop.is_set()
    steps_ns = np.diff([frame.stamp_ns for frame in sink.frames])
    np.testing.assert_array_equal(steps_ns, bag_lab.STEP_NS)


def bag_lab_telemetry() -> list:
    """Three samples of an IMU."""
    stamps_ns = [bag_lab.stamp_of(number) + 1 for number in range(3)]
    return [imu_message(at_ns, at_ns, 0.1 * n) for n, at_ns in enumerate(stamps_ns)]


def imu_message(stamp_ns: int, recorded_ns: int, rate: float = 0.0) -> bag_lab.Message:
    vector = bag_lab.kind("geometry_msgs/msg/Vector3")
    still = bag_lab.kind("geometry_msgs/msg/Quaternion")(0.0, 0.0, 0.0, 1.0)
    unknown = np.array([-1.0] + [0.0] * 8)
    imu = bag_lab.kind("sensor_msgs/msg/Imu")(
        bag_lab.header(stamp_ns),
        still,
        unknown,
        vector(0.0, 0.0, rate),
        np.zeros(9),
        vector(0.0, 0.0, 9.81),
        np.zeros(9),
    )
    return ("/imu/data", "sensor_msgs/msg/Imu", recorded_ns, imu)
