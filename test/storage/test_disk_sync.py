# SPDX-License-Identifier: Apache-2.0
"""A flush is confirmed by the disk soon, and nobody waits for that."""

from __future__ import annotations

import os
import threading
import time

import pytest

from worldsystem_core.errors import ConfigError
from worldsystem_storage import bag_writer, disk_sync
from worldsystem_storage.bag_writer import BagWriter
from worldsystem_storage.config import StorageConfig
from worldsystem_storage.disk_sync import DiskSync


@pytest.fixture
def file(tmp_path):
    with (tmp_path / "file").open("wb") as stream:
        yield stream


def wait_until(condition, timeout_s=5.0):
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_requests_during_a_slow_sync_become_one_and_leave_no_descriptor(file, monkeypatch):
    release, calls = threading.Event(), []

    def slow(descriptor):
        calls.append(descriptor)
        release.wait(5.0)

    monkeypatch.setattr(disk_sync.os, "fdatasync", slow)
    before = open_descriptors()
    sync = DiskSync()
    sync.request(file.fileno())
    wait_until(lambda: calls)
    start = time.monotonic()
    for _ in range(20):
        sync.request(file.fileno())
    assert time.monotonic() - start < 0.5
    time.sleep(0.05)
    assert sync.behind_s() >= 0.05
    release.set()
    wait_until(lambda: sync.behind_s() == 0.0)
    sync.close()
    assert len(calls) == sync.syncs == 2
    assert open_descriptors() == before


def test_what_waits_at_the_end_is_still_confirmed(file):
    sync = DiskSync()
    sync.request(file.fileno())
    sync.close()
    assert sync.syncs == 1
    assert sync.failure == ""


def test_a_disk_that_refuses_is_told(file, monkeypatch):
    def refuse(descriptor):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(disk_sync.os, "fdatasync", refuse)
    sync = DiskSync()
    sync.request(file.fileno())
    sync.close()
    assert "Input/output error" in sync.failure


def test_a_recording_whose_disk_refused_once_says_so_and_goes_on_after_a_gap(tmp_path, monkeypatch):
    """The system tells such a failure once; the writes that come next may well succeed."""
    refusals = [OSError(5, "Input/output error")]

    def refuse_once(descriptor):
        if refusals:
            raise refusals.pop()

    monkeypatch.setattr(disk_sync.os, "fdatasync", refuse_once)
    monkeypatch.setattr(bag_writer, "RETRY_S", 0.1)
    bag = BagWriter(tmp_path / "bag", StorageConfig(flush_s=0.05, reserve_mib=1))
    bag.add_topic("/a", "std_msgs/msg/String", "string data\n", "")
    said = []

    def told() -> bool:
        bag.write("/a", b"\0\1\0\0\2\0\0\0x\0", 1, 1)
        said.append(bag.state().stopped)
        return "refuses to confirm" in said[-1]

    wait_until(told)
    wait_until(lambda: bag.state().gaps == 1)
    count = bag.close()["/a"]
    assert count.offered == count.written + sum(count.dropped.values())
    assert count.dropped["disk_failed"] > 0


def test_a_bag_is_synced_at_every_flush_and_says_when_the_disk_stalls(tmp_path, monkeypatch):
    synced, release = [], threading.Event()

    def slow(descriptor):
        synced.append(os.fstat(descriptor).st_size)
        release.wait(5.0)

    monkeypatch.setattr(disk_sync.os, "fdatasync", slow)
    bag = BagWriter(tmp_path / "bag", StorageConfig(flush_s=0.05, reserve_mib=1))
    bag.add_topic("/a", "std_msgs/msg/String", "string data\n", "")
    bag.write("/a", b"\0\1\0\0\2\0\0\0x\0", 1, 1)
    wait_until(lambda: bag.state().stalled_s > 0.2)
    release.set()
    wait_until(lambda: len(synced) > 2 and bag.state().stalled_s < 0.2)
    assert bag.close()["/a"].written == 1


def test_a_bag_goes_on_in_another_file_after_its_time(tmp_path):
    bag = BagWriter(tmp_path / "bag", StorageConfig(flush_s=0.02, split_s=0.15, reserve_mib=1))
    bag.add_topic("/a", "std_msgs/msg/String", "string data\n", "")
    for number in range(3):
        bag.write("/a", b"\0\1\0\0\2\0\0\0x\0", number, number)
        time.sleep(0.25)
    bag.close()
    assert len(list((tmp_path / "bag").glob("*.mcap"))) >= 3


def test_a_selection_that_is_no_regular_expression_is_refused_at_once():
    with pytest.raises(ConfigError, match=r"topics = '\['.*no regular expression"):
        StorageConfig(topics="[")
