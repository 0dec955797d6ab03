# SPDX-License-Identifier: Apache-2.0
"""A recorded bag as other people's readers see it, and what happens when the disk says no."""

import logging
import subprocess
import sys
import textwrap
import threading
import time
from collections import Counter

import pytest
import yaml
from mcap.reader import make_reader
from mcap_ros2.decoder import DecoderFactory
from rosbags.highlevel import AnyReader
from rosbags.rosbag2 import Reader

from worldsystem_storage import bag_folder, bag_writer, space
from worldsystem_storage.bag_check import verify
from worldsystem_storage.bag_metadata import qos_yaml
from worldsystem_storage.bag_writer import BagWriter, TopicCount
from worldsystem_storage.config import StorageConfig
from worldsystem_storage.errors import DiskFull, StorageError
from worldsystem_storage.recover import recover

COUNTS = {"/flight": 200, "/fix": 350, "/silent": 0}


@pytest.fixture(scope="module")
def bag(tmp_path_factory, interfaces, record_flights):
    folder = tmp_path_factory.mktemp("runs") / "run"
    record_flights(folder, interfaces, StorageConfig(reserve_mib=1), 200, 350)
    return folder


def test_rosbags_reads_the_folder_with_the_right_counts(bag):
    with Reader(bag) as reader:
        assert {c.topic: c.msgcount for c in reader.connections} == COUNTS
        read = Counter(connection.topic for connection, _, _ in reader.messages())
        assert read == {topic: count for topic, count in COUNTS.items() if count}


def test_every_message_decodes_with_rosbags_from_the_bag_alone(bag, interfaces):
    with AnyReader([bag]) as reader:
        decoded = [
            (connection.topic, reader.deserialize(raw, connection.msgtype))
            for connection, _, raw in reader.messages()
        ]
        hashes = {connection.topic: connection.digest for connection in reader.connections}
    flights = [message for topic, message in decoded if topic == "/flight"]
    assert [int(message.header.frame_id) for message in flights] == list(range(200))
    assert list(flights[7].home.position_m) == [7.0, 8.0, 9.0]
    assert hashes["/flight"] == interfaces.store.hash_rihs01("drone_msgs/msg/Flight")


def test_every_message_decodes_with_mcap_from_the_file_alone(bag):
    path = bag / "run_0.mcap"
    with path.open("rb") as stream:
        reader = make_reader(stream, decoder_factories=[DecoderFactory()])
        summary = reader.get_summary()
        counts = {
            channel.topic: summary.statistics.channel_message_counts.get(number, 0)
            for number, channel in summary.channels.items()
        }
        fixes = [message for *_, message in reader.iter_decoded_messages(topics=["/fix"])]
    assert counts == COUNTS
    assert [message.position_m[0] for message in fixes] == [float(n) for n in range(350)]


def test_the_stored_bytes_and_times_are_those_handed_in(bag, interfaces):
    with (bag / "run_0.mcap").open("rb") as stream:
        messages = [m for *_, m in make_reader(stream).iter_messages(topics=["/flight"])]
    assert [m.data for m in messages] == [interfaces.flight(n) for n in range(200)]
    assert all(m.log_time - m.publish_time == 5 for m in messages)
    assert [m.sequence for m in messages] == list(range(200))


def test_metadata_is_version_9_with_hashes_and_qos(tmp_path, interfaces, config):
    bag = BagWriter(tmp_path / "run", config)
    profile = qos_yaml("reliable", "transient_local", 5)
    bag.add_topic(*interfaces.arguments("/fix", "drone_msgs/msg/Fix"), profile)
    bag.write("/fix", interfaces.fix(1), 10, 10)
    bag.close()
    content = yaml.safe_load((tmp_path / "run" / "metadata.yaml").read_text())
    info = content["rosbag2_bagfile_information"]
    (topic,) = info["topics_with_message_count"]
    assert info["version"] == 9
    assert info["storage_identifier"] == "mcap"
    assert info["relative_file_paths"] == ["run_0.mcap"]
    assert topic["topic_metadata"]["type_description_hash"].startswith("RIHS01_")
    assert topic["topic_metadata"]["offered_qos_profiles"][0]["durability"] == "transient_local"
    with Reader(tmp_path / "run") as reader:
        assert reader.connections[0].ext.offered_qos_profiles[0].depth == 5
        assert len(list(reader.messages())) == 1


def test_a_bag_without_a_message_opens(tmp_path, interfaces, config):
    bag = BagWriter(tmp_path / "run", config)
    bag.add_topic(*interfaces.arguments("/fix", "drone_msgs/msg/Fix"))
    assert bag.close() == {"/fix": TopicCount(0, 0)}
    with Reader(tmp_path / "run") as reader:
        assert reader.message_count == 0
        assert list(reader.messages()) == []


def test_a_bag_is_split_at_its_size_and_read_as_one(tmp_path, interfaces):
    config = StorageConfig(reserve_mib=1, split_mib=1, compression="none", chunk_kib=64)
    bag = BagWriter(tmp_path / "run", config)
    bag.add_topic(*interfaces.arguments("/flight", "drone_msgs/msg/Flight"))
    for number in range(40):
        bag.write("/flight", interfaces.flight(number, fixes=2000), number, number)
    counts = bag.close()
    files = sorted((tmp_path / "run").glob("*.mcap"))
    assert counts["/flight"].written == 40
    assert len(files) >= 3
    assert max(file.stat().st_size for file in files) < 1.3 * (1 << 20)
    with AnyReader([tmp_path / "run"]) as reader:
        ids = [reader.deserialize(r, c.msgtype).header.frame_id for c, _, r in reader.messages()]
    assert ids == [str(number) for number in range(40)]


def test_many_threads_write_and_none_is_lost(tmp_path, interfaces, config):
    bag = BagWriter(tmp_path / "run", config)
    names = [f"/fix_{n}" for n in range(4)]
    cdr = interfaces.fix(1)

    def send(name):
        bag.add_topic(*interfaces.arguments(name, "drone_msgs/msg/Fix"))
        for number in range(500):
            bag.write(name, cdr, number, number)

    threads = [threading.Thread(target=send, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert bag.close() == {name: TopicCount(500, 500) for name in names}


def test_a_slow_disk_drops_the_oldest_and_counts_them(tmp_path, interfaces, monkeypatch):
    gate = threading.Event()
    write = bag_folder.BagFile.write

    def when_open(self, *arguments):
        gate.wait(30)
        write(self, *arguments)

    monkeypatch.setattr(bag_folder.BagFile, "write", when_open)
    bag = BagWriter(tmp_path / "run", StorageConfig(reserve_mib=1, queue_messages=5))
    bag.add_topic(*interfaces.arguments("/fix", "drone_msgs/msg/Fix"))
    for number in range(100):
        bag.write("/fix", interfaces.fix(number), number, number)
    assert bag.state().topics["/fix"].written == 0, "the sender waited for the disk"
    gate.set()
    count = bag.close()["/fix"]
    assert count.dropped == {"disk_slow": 100 - count.written}
    assert 5 <= count.written <= 6, "those that wait, and the one that is being written"
    with AnyReader([tmp_path / "run"]) as reader:
        last = [reader.deserialize(raw, c.msgtype) for c, _, raw in reader.messages()][-1]
    assert last.position_m[0] == 99, "the newest message must survive"


def test_waiting_messages_are_bounded_by_their_size(tmp_path, interfaces, monkeypatch):
    gate = threading.Event()
    write = bag_folder.BagFile.write

    def when_open(self, *arguments):
        gate.wait(10)
        write(self, *arguments)

    monkeypatch.setattr(bag_folder.BagFile, "write", when_open)
    bag = BagWriter(tmp_path / "run", StorageConfig(reserve_mib=1, queue_mib=1))
    bag.add_topic(*interfaces.arguments("/flight", "drone_msgs/msg/Flight"))
    cdr = interfaces.flight(1, fixes=6000)
    for number in range(30):
        bag.write("/flight", cdr, number, number)
    gate.set()
    count = bag.close()["/flight"]
    assert count.written <= (1 << 20) // len(cdr) + 1
    assert count.written + count.dropped["disk_slow"] == 30


def test_the_reserve_stops_the_recording_and_it_keeps_saying_so(
    tmp_path, interfaces, monkeypatch, caplog, config
):
    monkeypatch.setattr(bag_writer, "REMINDER_S", 0.05)
    bag = BagWriter(tmp_path / "run", config)
    bag.add_topic(*interfaces.arguments("/fix", "drone_msgs/msg/Fix"))
    for number in range(20):
        bag.write("/fix", interfaces.fix(number), number, number)
    _wait(lambda: bag.state().topics["/fix"].written == 20)
    monkeypatch.setattr(space, "free_bytes", lambda folder: 1000)
    _wait(lambda: bag.state().stopped)
    with caplog.at_level(logging.ERROR):
        for number in range(5):
            bag.write("/fix", interfaces.fix(number), number, number)
            time.sleep(0.25)
    assert "reserve_mib" in bag.state().stopped
    assert len(caplog.records) >= 3
    assert bag.close()["/fix"] == TopicCount(25, 20, {"disk_full": 5})
    with Reader(tmp_path / "run") as reader:
        assert reader.message_count == 20


def test_recording_goes_on_by_itself_once_there_is_room_again(
    tmp_path, interfaces, monkeypatch, config
):
    monkeypatch.setattr(bag_writer, "RETRY_S", 0.05)
    bag = BagWriter(tmp_path / "run", config)
    bag.add_topic(*interfaces.arguments("/fix", "drone_msgs/msg/Fix"))
    bag.write("/fix", interfaces.fix(0), 0, 0)
    _wait(lambda: bag.state().topics["/fix"].written == 1)
    with monkeypatch.context() as full:
        full.setattr(space, "free_bytes", lambda folder: 1000)
        _wait(lambda: bag.state().stopped)
        bag.write("/fix", interfaces.fix(1), 1, 1)
        _wait(lambda: bag.state().topics["/fix"].dropped == {"disk_full": 1})
    _wait(lambda: not bag.state().stopped)
    bag.write("/fix", interfaces.fix(2), 2, 2)
    assert bag.state().gaps == 1
    assert bag.close()["/fix"] == TopicCount(3, 2, {"disk_full": 1})
    assert verify(tmp_path / "run") == []
    with Reader(tmp_path / "run") as reader:
        assert [stamp for _, stamp, _ in reader.messages()] == [0, 2]


def test_what_comes_as_recording_goes_on_is_kept_though_it_is_closed_in_the_same_moment(
    tmp_path, interfaces, monkeypatch, config
):
    monkeypatch.setattr(bag_writer, "RETRY_S", 0.05)
    bag = BagWriter(tmp_path / "run", config)
    bag.add_topic(*interfaces.arguments("/fix", "drone_msgs/msg/Fix"))
    going_on, closed = threading.Event(), threading.Event()
    go_on = bag._files.go_on

    def go_on_slowly(topics):
        go_on(topics)
        going_on.set()
        assert closed.wait(10.0)

    monkeypatch.setattr(bag._files, "go_on", go_on_slowly)
    with monkeypatch.context() as full:
        full.setattr(space, "free_bytes", lambda folder: 1000)
        _wait(lambda: bag.state().stopped)
    assert going_on.wait(10.0)
    bag.write("/fix", interfaces.fix(0), 0, 0)
    bag._queue.close()
    closed.set()
    assert bag.close()["/fix"] == TopicCount(1, 1)
    with Reader(tmp_path / "run") as reader:
        assert [stamp for _, stamp, _ in reader.messages()] == [0]


def test_a_disk_that_is_full_at_the_start_is_told_at_once(tmp_path, monkeypatch, config):
    monkeypatch.setattr(space, "free_bytes", lambda folder: 1000)
    with pytest.raises(DiskFull, match=r"0 MiB free, 1 MiB are kept"):
        BagWriter(tmp_path / "run", config)
    assert not (tmp_path / "run").exists()


def test_a_file_that_is_removed_meanwhile_is_noticed_and_the_rest_recorded(
    tmp_path, interfaces, config, caplog
):
    folder = tmp_path / "run"
    bag = BagWriter(folder, config)
    bag.add_topic(*interfaces.arguments("/fix", "drone_msgs/msg/Fix"))
    bag.write("/fix", interfaces.fix(0), 0, 0)
    _wait(lambda: bag.state().topics["/fix"].written == 1)
    (folder / "run_0.mcap").unlink()
    _wait(lambda: bag.state().gaps == 1)
    bag.write("/fix", interfaces.fix(1), 1, 1)
    assert bag.close()["/fix"] == TopicCount(2, 1, {"file_gone": 1})
    assert verify(folder) == []
    assert "removed while it was being recorded" in caplog.text


def test_a_folder_that_is_moved_meanwhile_loses_nothing(tmp_path, interfaces, config):
    bag = BagWriter(tmp_path / "run", config)
    bag.add_topic(*interfaces.arguments("/fix", "drone_msgs/msg/Fix"))
    bag.write("/fix", interfaces.fix(0), 0, 0)
    _wait(lambda: bag.state().topics["/fix"].written == 1)
    (tmp_path / "run").rename(tmp_path / "kept")
    _wait(lambda: bag.state().gaps == 1)
    bag.write("/fix", interfaces.fix(1), 1, 1)
    assert bag.close()["/fix"] == TopicCount(2, 2)
    assert recover(tmp_path / "kept").messages == {"/fix": 1}
    assert verify(tmp_path / "kept") == verify(tmp_path / "run") == []


def test_the_names_of_new_files_are_confirmed_by_the_disk_too(tmp_path, monkeypatch, config):
    confirmed = []
    monkeypatch.setattr(bag_folder, "sync_folder", confirmed.append)
    BagWriter(tmp_path / "run", config).close()
    assert confirmed == [tmp_path / "run"]


def test_a_failed_write_stops_the_recording_and_what_was_written_is_recovered(tmp_path, interfaces):
    """The file size limit stands for a disk that is full without a warning."""
    program = textwrap.dedent("""
        import os, resource, signal, sys
        from pathlib import Path
        from worldsystem_storage.bag_check import verify
        from worldsystem_storage.bag_writer import BagWriter
        from worldsystem_storage.config import StorageConfig
        from worldsystem_storage.recover import recover
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        folder = Path(sys.argv[1])
        bag = BagWriter(folder, StorageConfig(reserve_mib=1, chunk_kib=64))
        bag.add_topic("/a", "p/msg/A", "uint8[] data\\n", "")
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, resource.RLIM_INFINITY))
        for number in range(400):
            bag.write("/a", bytes(8) + os.urandom(10_000), number, number)
        count = bag.close()["/a"]
        assert count.offered == 400 == count.written + count.dropped["disk_failed"], count
        assert "File too large" in bag.state().stopped
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
        found = recover(folder)
        assert verify(folder) == []
        assert found.messages["/a"] >= max(count.written, 80), (found, count)
    """)
    run = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "run")],
        capture_output=True,
        text=True,
        timeout=60,
        env={"PYTHONPATH": ":".join(sys.path)},
    )
    assert run.returncode == 0, run.stderr


def test_a_folder_that_cannot_be_written_is_named(tmp_path, config):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"cannot record into .*file/run: Not a directory"):
        BagWriter(tmp_path / "file" / "run", config)


def test_a_folder_that_holds_a_bag_is_not_overwritten(bag, config):
    with pytest.raises(StorageError, match="already holds a bag"):
        BagWriter(bag, config)


def test_an_unknown_topic_and_a_second_type_are_refused(tmp_path, interfaces, config):
    bag = BagWriter(tmp_path / "run", config)
    fix = interfaces.arguments("/fix", "drone_msgs/msg/Fix")
    bag.add_topic(*fix)
    bag.add_topic(*fix)
    with pytest.raises(StorageError, match="call add_topic first"):
        bag.write("/lost", b"", 0, 0)
    with pytest.raises(StorageError, match="already recorded as drone_msgs/msg/Fix"):
        bag.add_topic(*interfaces.arguments("/fix", "std_msgs/msg/Header"))
    with pytest.raises(StorageError, match="must be a list of profiles"):
        bag.add_topic(*interfaces.arguments("/b", "drone_msgs/msg/Fix"), "depth: 1")
    bag.close()


def test_a_message_after_close_is_counted(tmp_path, interfaces, config):
    bag = BagWriter(tmp_path / "run", config)
    bag.add_topic(*interfaces.arguments("/fix", "drone_msgs/msg/Fix"))
    bag.close()
    bag.write("/fix", interfaces.fix(1), 0, 0)
    assert bag.close()["/fix"] == TopicCount(1, 0, {"closed": 1})


def _wait(condition, timeout_s=10.0):
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)
