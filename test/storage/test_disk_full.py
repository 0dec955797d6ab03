# SPDX-License-Identifier: Apache-2.0
"""A disk that fills up: a clean stop, a bag and a video that are whole, and the rest goes on.

Once on a small file system that is mounted for it, where that is allowed, and once with a disk that
only says how much is free.
"""

from __future__ import annotations

import errno
import os
import subprocess
import time
from pathlib import Path

import av
import numpy as np
import pytest
from rosbags.rosbag2 import Reader

from worldsystem_core.frames import Camera, Frame
from worldsystem_core.reconstruction import Keyframe, NewKeyframe
from worldsystem_storage import bag_folder, bag_writer, space
from worldsystem_storage.bag_check import verify
from worldsystem_storage.bag_file import BagFile
from worldsystem_storage.bag_folder import BagFolder
from worldsystem_storage.bag_writer import BagWriter, TopicCount
from worldsystem_storage.config import StorageConfig
from worldsystem_storage.errors import DiskFull
from worldsystem_storage.keyframe_files import KeyframeFiles
from worldsystem_storage.recover import Repair
from worldsystem_storage.video_file import VideoSession

MIB = 1 << 20


def wait_until(condition, timeout_s=10.0):
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


@pytest.fixture
def small_disk(tmp_path) -> Path:
    """A file system of 16 MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(place)]
    try:
        done = subprocess.run(mount, capture_output=True, text=True, timeout=10)
    except OSError as error:
        pytest.skip(f"there is no mount here: {error}")
    if done.returncode:
        pytest.skip(f"mounting is not allowed here: {done.stderr.strip()}")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True, timeout=10)


def read(bag: Path) -> list[int]:
    with Reader(bag) as reader:
        return [stamp for _, stamp, _ in reader.messages()]


def test_a_real_disk_that_fills_up_stops_the_recording_at_its_reserve(small_disk, monkeypatch):
    monkeypatch.setattr(bag_writer, "RETRY_S", 0.1)
    monkeypatch.setattr(bag_writer, "SPACE_CHECK_BYTES", MIB)
    bag = BagWriter(small_disk / "run", StorageConfig(reserve_mib=4, flush_s=0.05))
    bag.add_topic("/a", "p/msg/A", "uint8[] data\n", "")
    sent = 0
    while not bag.state().stopped:
        bag.write("/a", bytes(8) + os.urandom(100_000), sent, sent)
        sent += 1
        time.sleep(0.002)
        assert sent < 2000
    assert "4 MiB are kept (reserve_mib)" in bag.state().stopped
    wait_until(lambda: verify(small_disk / "run") == [])
    with pytest.raises(DiskFull):
        BagWriter(small_disk / "other", StorageConfig(reserve_mib=4))
    assert space.free_bytes(small_disk) > 2 * MIB

    subprocess.run(["mount", "-o", "remount,size=40m", str(small_disk)], check=True, timeout=10)
    wait_until(lambda: not bag.state().stopped)
    bag.write("/a", bytes(8), sent, sent)
    count = bag.close()["/a"]
    assert count.offered == sent + 1 == count.written + sum(count.dropped.values())
    assert set(count.dropped) <= {"disk_full"}
    assert verify(small_disk / "run") == []
    stamps = read(small_disk / "run")
    assert len(stamps) == count.written
    assert stamps[-1] == sent


def test_another_program_that_takes_the_last_byte_costs_no_more_than_the_last_flush(
    small_disk, monkeypatch
):
    monkeypatch.setattr(bag_writer, "RETRY_S", 0.1)
    monkeypatch.setattr(bag_writer, "SPACE_CHECK_BYTES", 1 << 40)
    bag = BagWriter(small_disk / "run", StorageConfig(reserve_mib=1, flush_s=60.0, chunk_kib=64))
    bag.add_topic("/a", "p/msg/A", "uint8[] data\n", "")
    (small_disk / "greedy").write_bytes(bytes(15 * MIB))
    sent = 0
    while not bag.state().stopped:
        bag.write("/a", bytes(8) + os.urandom(10_000), sent, sent)
        sent += 1
        time.sleep(0.001)
    assert "No space left on device" in bag.state().stopped
    (small_disk / "greedy").unlink()
    wait_until(lambda: not bag.state().stopped)
    bag.write("/a", bytes(8), sent, sent)
    count = bag.close()["/a"]
    assert count.offered == sent + 1 == count.written + count.dropped["disk_failed"]
    assert verify(small_disk / "run") == [], "the broken file was not mended"
    stamps = read(small_disk / "run")
    assert len(stamps) >= count.written
    assert stamps[-1] == sent


def test_recording_goes_on_without_room_to_mend_the_broken_file_and_mends_it_at_the_end(
    tmp_path, monkeypatch
):
    free, tried, failures = [2 * MIB], [], []
    flush = BagFile.flush

    def flush_or_fail(file):
        if failures:
            raise failures.pop()
        flush(file)

    def repair(path):
        tried.append(path.name)
        if free[0] < path.stat().st_size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return Repair(path)

    monkeypatch.setattr(bag_writer, "RETRY_S", 0.05)
    monkeypatch.setattr(space, "free_bytes", lambda folder: free[0])
    monkeypatch.setattr(BagFile, "flush", flush_or_fail)
    monkeypatch.setattr(bag_folder, "Repair", repair)
    folder = tmp_path / "run"
    config = StorageConfig(reserve_mib=1, flush_s=0.05, chunk_kib=64, sync=False)
    bag = BagWriter(folder, config)
    bag.add_topic("/a", "p/msg/A", "uint8[] data\n", "")
    for number in range(30):
        bag.write("/a", bytes(8) + os.urandom(100_000), number, number)
    wait_until(lambda: (folder / "run_0.mcap").stat().st_size > 2 * MIB)
    failures.append(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    wait_until(lambda: bag.state().gaps == 1)
    assert not tried, "the disk is filled for nothing"
    bag.write("/a", bytes(8), 30, 30)
    free[0] = 100 * MIB
    count = bag.close()["/a"]
    assert count.offered == 31 == count.written + count.dropped.get("disk_failed", 0)
    assert tried == ["run_0.mcap"]
    assert verify(folder) == [], "the broken file was not mended"
    stamps = read(folder)
    assert len(stamps) >= count.written
    assert stamps[-1] == 30


def test_what_a_full_disk_costs_at_the_end_of_a_file_is_counted_as_such(tmp_path, monkeypatch):
    free, flush = [100 * MIB], BagFile.flush

    def flush_and_fill(file: BagFile) -> None:
        flush(file)
        free[0] = 1000

    monkeypatch.setattr(space, "free_bytes", lambda folder: free[0])
    monkeypatch.setattr(BagFile, "flush", flush_and_fill)
    monkeypatch.setattr(
        BagFolder, "file_is_full", lambda folder: folder.file.summary.counts.total() == 3
    )
    bag = BagWriter(tmp_path / "run", StorageConfig(reserve_mib=1, flush_s=60.0))
    bag.add_topic("/a", "p/msg/A", "uint8[] data\n", "")
    for number in range(5):
        bag.write("/a", bytes(8), number, number)
    assert bag.close()["/a"] == TopicCount(offered=5, written=3, dropped={"disk_full": 2})
    assert read(tmp_path / "run") == [0, 1, 2]


def test_the_video_stops_at_the_reserve_too_and_goes_on_at_a_key_frame(
    tmp_path, encoded_video, monkeypatch
):
    session = VideoSession(tmp_path, StorageConfig(reserve_mib=1))
    frames = encoded_video(40, gop=10)
    for frame in frames[:15]:
        assert session.write(frame)
    with monkeypatch.context() as full:
        full.setattr(space, "free_bytes", lambda folder: 1000)
        assert [session.write(frame) for frame in frames[15:30]] == [True] * 5 + [False] * 10
    for frame in frames[30:]:
        assert session.write(frame)
    session.close()
    assert session.dropped == {"disk_full": 10}
    pictures = []
    for video in session.videos:
        with av.open(str(video)) as container:
            pictures.append(sum(1 for _ in container.decode(video=0)))
    assert pictures == [20, 10]


def test_stills_that_a_full_disk_costs_are_counted_beside_the_video(
    tmp_path, monkeypatch, encoded_video
):
    session = VideoSession(tmp_path, StorageConfig(reserve_mib=1, still_every=1))
    frames = encoded_video(40, gop=10)
    grey = np.full((6, 8, 3), 90, np.uint8)
    with monkeypatch.context() as full:
        full.setattr(space, "free_bytes", lambda folder: 1000)
        refused = sum(not session.write(frame) for frame in frames)
        assert session.still(Frame(id=1, stamp_ns=1, rgb=grey)) is None
    assert refused
    assert session.dropped == {"disk_full": refused + 1}
    assert session.still(Frame(id=2, stamp_ns=2, rgb=grey)) is not None, "there is room again"
    session.close()


def test_neither_stills_nor_keyframes_use_up_the_reserve(tmp_path, monkeypatch, caplog):
    session = VideoSession(tmp_path, StorageConfig(reserve_mib=1, still_every=1))
    files = KeyframeFiles(session.folder, 90, reserve_mib=1)
    grey = np.full((6, 8, 3), 90, np.uint8)
    camera = Camera(width=8, height=6, fx=8.0, fy=8.0, cx=3.5, cy=2.5)
    points, confidence = np.ones((6, 8, 3), np.float32), np.ones((6, 8), np.float32)
    with monkeypatch.context() as full:
        full.setattr(space, "free_bytes", lambda folder: 1000)
        for number in range(3):
            assert session.still(Frame(id=number, stamp_ns=number, rgb=grey)) is None
            keyframe = Keyframe(
                id=number,
                frame_id=number,
                stamp_ns=number,
                world_from_cam=np.eye(4),
                camera=camera,
                pointmap=points,
                confidence=confidence,
                rgb=grey,
            )
            files.take(NewKeyframe(keyframe))
    assert session.dropped == files.dropped == {"disk_full": 3}
    assert session.still(Frame(id=3, stamp_ns=3, rgb=grey)) is not None
    session.close()
    assert sorted(p.name for p in session.folder.iterdir()) == ["frame_3.jpg", "metadata.json"]
    assert len(caplog.records) == 2, "it is told once for each"
