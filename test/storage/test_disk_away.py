# SPDX-License-Identifier: Apache-2.0
"""A disk that is away or fails for a while: the recorder says so, and goes on once it is back."""

from __future__ import annotations

import errno
import time

import pytest

from worldsystem_storage import bag_file, bag_folder, bag_writer, space
from worldsystem_storage.bag_check import verify
from worldsystem_storage.bag_writer import BagWriter, TopicCount


def wait_until(condition, timeout_s=10.0):
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def test_the_state_can_be_asked_for_while_the_disk_is_away(tmp_path, monkeypatch, config):
    bag = BagWriter(tmp_path / "run", config)

    class Away:
        def stat(self):
            raise OSError(errno.ENOTCONN, "Transport endpoint is not connected")

    with monkeypatch.context() as unplugged:
        unplugged.setattr(bag._files.file, "path", Away())
        assert bag.state().grown_bytes == 0
    assert bag.state().grown_bytes > 0
    bag.close()


@pytest.mark.parametrize(
    ("place", "name"), [(bag_file.McapStream, "add_metadata"), (bag_folder, "write_metadata")]
)
def test_a_next_file_that_cannot_be_begun_is_not_left_behind_and_not_in_the_way(
    tmp_path, interfaces, monkeypatch, config, place, name
):
    monkeypatch.setattr(bag_writer, "RETRY_S", 0.05)
    folder = tmp_path / "run"
    bag = BagWriter(folder, config)
    bag.add_topic(*interfaces.arguments("/fix", "drone_msgs/msg/Fix"))
    bag.write("/fix", interfaces.fix(0), 0, 0)
    wait_until(lambda: bag.state().topics["/fix"].written == 1)
    failures = []

    def fail(*_):
        failures.append(1)
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as failing:
        with monkeypatch.context() as full:
            full.setattr(space, "free_bytes", lambda folder: 1000)
            wait_until(lambda: bag.state().stopped and verify(folder) == [])
            time.sleep(0.2)  # the file has its end, and soon the metadata theirs
            failing.setattr(place, name, fail)
        wait_until(lambda: len(failures) >= 2)
    wait_until(lambda: not bag.state().stopped)
    bag.write("/fix", interfaces.fix(1), 1, 1)
    assert bag.close()["/fix"] == TopicCount(2, 2)
    assert verify(folder) == []
    assert len(list(folder.glob("*.mcap"))) == 2


def test_a_file_that_is_gone_while_no_other_can_be_begun_does_not_end_the_recording(
    tmp_path, interfaces, monkeypatch, config
):
    monkeypatch.setattr(bag_writer, "RETRY_S", 0.05)
    folder = tmp_path / "run"
    bag = BagWriter(folder, config)
    bag.add_topic(*interfaces.arguments("/fix", "drone_msgs/msg/Fix"))

    def fail(*_):
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as failing:
        failing.setattr(bag_folder, "write_metadata", fail)
        (folder / "run_0.mcap").unlink()
        wait_until(lambda: bag.state().stopped)
    wait_until(lambda: not bag.state().stopped)
    bag.write("/fix", interfaces.fix(1), 1, 1)
    assert bag.close()["/fix"] == TopicCount(1, 1)
    assert verify(folder) == []


@pytest.mark.parametrize("failing", [("write",), ("flush", "close")])
def test_a_disk_that_is_taken_away_and_comes_back_keeps_its_file_and_is_recorded_to_again(
    tmp_path, interfaces, monkeypatch, caplog, config, failing
):
    monkeypatch.setattr(bag_writer, "RETRY_S", 0.05)
    disk, away = tmp_path / "disk", tmp_path / "away"
    disk.mkdir()
    (tmp_path / "usb").symlink_to(disk)  # leads nowhere meanwhile, and no folder can take its place
    folder = tmp_path / "usb" / "run"
    bag = BagWriter(folder, config)
    bag.add_topic(*interfaces.arguments("/fix", "drone_msgs/msg/Fix"))
    begun_bytes = bag.state().grown_bytes
    bag.write("/fix", interfaces.fix(0), 0, 0)
    wait_until(lambda: bag.state().grown_bytes > begun_bytes)

    def fail(*_):
        if disk.exists():
            disk.rename(away)
        raise OSError(errno.EIO, "Input/output error")

    for name in failing:
        monkeypatch.setattr(bag._files.file, name, fail)
    bag.write("/fix", interfaces.fix(1), 1, 1)
    wait_until(lambda: bag.state().topics["/fix"].dropped == {"disk_failed": 1})
    wait_until(lambda: "cannot go on recording" in caplog.text)
    away.rename(disk)
    wait_until(lambda: not bag.state().stopped, timeout_s=5.0)
    bag.write("/fix", interfaces.fix(2), 2, 2)
    assert bag.close()["/fix"] == TopicCount(3, 2, {"disk_failed": 1})
    assert verify(folder) == []
