# SPDX-License-Identifier: Apache-2.0
"""Bags that were cut anywhere, or whose recorder was killed, are readable again."""

import io
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from mcap.reader import make_reader
from mcap.writer import Writer
from rosbags.highlevel import AnyReader
from rosbags.rosbag2 import Reader

from worldsystem_storage.bag_check import verify
from worldsystem_storage.bag_file import BagFile
from worldsystem_storage.bag_metadata import Topic
from worldsystem_storage.bag_writer import BagWriter
from worldsystem_storage.config import StorageConfig
from worldsystem_storage.errors import StorageError
from worldsystem_storage.recover import recover

WRITER = textwrap.dedent("""
    import sys, threading
    from itertools import count
    from pathlib import Path
    from types import SimpleNamespace
    from worldsystem_storage import bag_writer
    from worldsystem_storage.config import StorageConfig
    clock, numbers, ready = SimpleNamespace(now_s=0.0), count(1), threading.Event()
    bag_writer.time = SimpleNamespace(monotonic=lambda: clock.now_s)
    take_waiting = bag_writer.MessageQueue.take

    def take(queue, timeout_s):
        ready.wait()
        end_s = clock.now_s + timeout_s
        while clock.now_s < end_s and not queue._is_batch():
            number = next(numbers)
            print(number, flush=True)
            bag.write("/a", bytes(8 + 200), number, number)
            clock.now_s += float(sys.argv[3])
        return take_waiting(queue, 0.0)

    bag_writer.MessageQueue.take = take
    config = StorageConfig(reserve_mib=1, flush_s=float(sys.argv[2]))
    bag = bag_writer.BagWriter(Path(sys.argv[1]), config)
    bag.add_topic("/a", "p/msg/A", "uint8[] data\\n", "")
    ready.set()
    bag._thread.join()
""")
"""While its recorder waits, a message comes, and is printed, at each step of the clock it has."""


@pytest.fixture(scope="module", params=["lz4", "zstd", "none"])
def whole(request, tmp_path_factory, interfaces, record_flights):
    """The bytes of one file of 40 flights and 60 fixes in several chunks."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    config = StorageConfig(reserve_mib=1, chunk_kib=16, compression=request.param)
    record_flights(folder, interfaces, config, 40, 400)
    return (folder / "run_0.mcap").read_bytes()


def test_a_file_cut_anywhere_is_recovered_up_to_the_cut(whole, tmp_path):
    rng = np.random.default_rng(1)
    cuts = {0, 1, 7, 8, 9, 20, 60, len(whole) - 1, len(whole) - 8, len(whole) - 37}
    cuts |= {int(cut) for cut in rng.integers(0, len(whole), 60)}
    path = tmp_path / "cut.mcap"
    before = 0
    for cut in sorted(cuts):
        path.write_bytes(whole[:cut])
        found = recover(path)
        assert found.repaired
        assert not found.kept
        assert verify(path) == []
        with Reader(path) as reader:
            read = sum(1 for _ in reader.messages())
        assert read == sum(found.messages.values()) >= before, f"cut at {cut}"
        before = read
    assert before == 440


def test_recovered_messages_decode_from_the_file_alone(whole, tmp_path):
    path = tmp_path / "cut.mcap"
    path.write_bytes(whole[: len(whole) // 2])
    recover(path)
    with AnyReader([path]) as reader:
        numbers = [
            int(reader.deserialize(raw, connection.msgtype).header.frame_id)
            for connection, _, raw in reader.messages()
            if connection.topic == "/flight"
        ]
    assert numbers == list(range(40))[: len(numbers)]
    assert numbers


def test_a_whole_bag_is_left_alone(whole, tmp_path):
    path = tmp_path / "whole.mcap"
    path.write_bytes(whole)
    found = recover(path)
    assert not found.repaired
    assert found.messages == {"/flight": 40, "/fix": 400}
    assert found.lost_bytes == 0
    assert path.read_bytes() == whole


def test_recovering_twice_changes_nothing(whole, tmp_path):
    path = tmp_path / "cut.mcap"
    path.write_bytes(whole[: len(whole) * 2 // 3])
    first = recover(path)
    content = path.read_bytes()
    second = recover(path)
    assert path.read_bytes() == content
    assert second.messages == first.messages


def messages_of(path):
    with Reader(path) as reader:
        return [(c.topic, stamp, bytes(raw)) for c, stamp, raw in reader.messages()]


def test_damage_anywhere_never_raises_and_never_gives_a_wrong_message(whole, tmp_path):
    rng = np.random.default_rng(2)
    path = tmp_path / "damaged.mcap"
    path.write_bytes(whole)
    written = set(messages_of(path))
    for _ in range(40):
        content = np.frombuffer(whole[: len(whole) - 20], np.uint8).copy()
        at = rng.integers(0, len(content), 3)
        content[at] ^= rng.integers(1, 255, 3, np.uint8)
        path.write_bytes(content.tobytes())
        found = recover(path)
        assert verify(path) == []
        there = messages_of(path)
        assert len(there) == sum(found.messages.values())
        assert set(there) <= written


def chunks_of(content):
    """Where each chunk's packed bytes begin and end, and how many messages it holds."""
    summary = make_reader(io.BytesIO(content)).get_summary()
    chunks = summary.chunk_indexes
    ends = [chunk.chunk_start_offset + chunk.chunk_length for chunk in chunks]
    with_times = [m.log_time for *_, m in make_reader(io.BytesIO(content)).iter_messages()]
    counts = [
        sum(c.message_start_time <= t <= c.message_end_time for t in with_times) for c in chunks
    ]
    return [
        (end - chunk.compressed_size, end, count)
        for chunk, end, count in zip(chunks, ends, counts, strict=True)
    ]


def test_one_wrong_bit_costs_one_chunk_and_the_loss_is_told_exactly(whole, tmp_path):
    rng = np.random.default_rng(4)
    path = tmp_path / "flipped.mcap"
    largest = max(count for *_, count in chunks_of(whole))
    for at in rng.integers(0, len(whole), 40):
        damaged = bytearray(whole)
        damaged[at] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        problems = verify(path)
        found = recover(path)
        there = sum(found.messages.values())
        assert 440 - there <= largest, f"byte {at}"
        assert there == 440 or found.missing in (0, 440 - there), f"byte {at}"
        assert problems or there == 440, f"the change of byte {at} went unnoticed"
        assert recover(path).loss() == ""
        for kept in found.kept:
            assert kept.read_bytes() == bytes(damaged)
            kept.unlink()


def test_messages_that_are_gone_between_others_are_counted(whole, tmp_path):
    path = tmp_path / "hole.mcap"
    with_hole = bytearray(whole)
    begin, end, count = chunks_of(whole)[0]
    with_hole[(begin + end) // 2] ^= 4
    path.write_bytes(with_hole)
    found = recover(path)
    assert found.missing == 440 - sum(found.messages.values()) == count
    assert f"{found.missing} messages in between" in found.loss()
    assert found.kept == (tmp_path / "hole.mcap.broken",)


@pytest.mark.parametrize("opcode", [0x07, 0x86], ids=hex)
def test_the_original_is_kept_where_the_opcode_of_a_chunk_was_hit(whole, tmp_path, opcode):
    path = tmp_path / "hit.mcap"
    damaged = bytearray(whole)
    damaged[make_reader(io.BytesIO(whole)).get_summary().chunk_indexes[0].chunk_start_offset] = (
        opcode
    )
    path.write_bytes(damaged)
    found = recover(path)
    assert found.missing == chunks_of(whole)[0][2] > 0
    assert [kept.read_bytes() for kept in found.kept] == [bytes(damaged)]


def test_topics_keep_their_types_when_the_chunk_that_defined_these_is_damaged(tmp_path):
    path = tmp_path / "hit.mcap"
    file = BagFile(path, compression="none")
    first, second = (Topic(name, "p/msg/A", "uint8[] data\n", "", "") for name in ("/a", "/b"))
    for number, topic in enumerate((first, second)):
        file.write(topic, bytes(8), number, number)
        file.flush()
    file.close([first, second])
    path.write_bytes(path.read_bytes().replace(b"uint8[] data", b"uint8[] datb", 1))
    assert recover(path).messages == {"/b": 1}
    with Reader(path) as reader:
        assert {(c.topic, c.msgtype, c.msgdef.data) for c in reader.connections} == {
            (topic.name, "p/msg/A", "uint8[] data\n") for topic in (first, second)
        }


def test_a_repair_says_up_to_when_the_recording_goes_and_what_may_lack_after_that(whole, tmp_path):
    path = tmp_path / "cut.mcap"
    path.write_bytes(whole[: len(whole) // 2])
    found = recover(path)
    assert found.last_ns == max(stamp for _, stamp, _ in messages_of(path))
    assert found.held_back_s == StorageConfig().flush_s
    assert "at most 0.5 s after the newest message" in found.loss()
    assert recover(path).loss() == ""


def test_a_bag_of_another_system_keeps_its_encodings(tmp_path):
    path = tmp_path / "foreign.mcap"
    schema_bytes = bytes(range(256))
    with path.open("wb") as stream:
        writer = Writer(stream, chunk_size=500)
        writer.start("", "foreign")
        schema = writer.register_schema("p.Scan", "protobuf", schema_bytes)
        scans = writer.register_channel("/scan", "protobuf", schema)
        notes = writer.register_channel("/note", "json", 0)
        for n in range(60):
            writer.add_message(scans, n, bytes([n]) * 20, n)
            writer.add_message(notes, n, b"{}", n)
        writer.add_attachment(1, 2, "K.txt", "text/plain", b"500 0 320")
        writer.add_metadata("drone", {"serial": "7"})
        writer.finish()
    path.write_bytes(path.read_bytes()[:-40])
    assert recover(path).messages == {"/scan": 60, "/note": 60}
    with path.open("rb") as stream:
        reader = make_reader(stream)
        found = {c.topic: (s, c) for s, c, _ in reader.iter_messages()}
        (attachment,) = reader.iter_attachments()
        extras = {m.name: m.metadata for m in reader.iter_metadata()}
    assert (attachment.name, attachment.data) == ("K.txt", b"500 0 320")
    assert extras["drone"] == {"serial": "7"}
    assert verify(path) == []
    schema, channel = found["/scan"]
    assert (schema.encoding, schema.data, channel.message_encoding) == (
        "protobuf",
        schema_bytes,
        "protobuf",
    )
    assert found["/note"][0] is None
    assert found["/note"][1].message_encoding == "json"


def test_what_is_no_mcap_becomes_an_empty_bag_beside_it_and_no_file_is_an_error(tmp_path):
    path = tmp_path / "noise.mcap"
    noise = np.random.default_rng(3).bytes(10_000)
    path.write_bytes(noise)
    (kept,) = recover(path).kept
    assert kept.read_bytes() == noise
    assert recover(path).messages == {}
    assert recover(path).lost_bytes == 0
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(StorageError, match=r"no \.mcap file"):
        recover(tmp_path / "letter.txt")
    assert (tmp_path / "letter.txt").read_text() == "dear"
    with pytest.raises(StorageError, match="no bag at"):
        recover(tmp_path / "lost.mcap")
    (tmp_path / "empty").mkdir()
    with pytest.raises(StorageError, match="no bag at"):
        recover(tmp_path / "empty")


def test_a_bag_that_is_being_recorded_is_not_touched(tmp_path, interfaces, config):
    bag = BagWriter(tmp_path / "run", config)
    with pytest.raises(StorageError, match="still being recorded"):
        recover(tmp_path / "run")
    bag.close()
    assert not recover(tmp_path / "run").repaired


@pytest.mark.parametrize("share", [0.0, 0.3, 0.7, 0.98])
def test_a_description_that_was_cut_off_is_written_anew(tmp_path, interfaces, config, share):
    folder = tmp_path / "run"
    bag = BagWriter(folder, config)
    bag.add_topic(*interfaces.arguments("/fix", "drone_msgs/msg/Fix"))
    bag.write("/fix", interfaces.fix(1), 5, 5)
    bag.close()
    metadata = folder / "metadata.yaml"
    whole = metadata.read_text()
    metadata.write_text(whole[: int(share * len(whole))])
    assert verify(folder)
    found = recover(folder)
    assert found.repaired
    assert found.loss() == ""
    assert verify(folder) == []
    assert len(messages_of(folder)) == 1


def test_a_bag_of_several_files_keeps_their_order_and_counts(tmp_path, interfaces):
    config = StorageConfig(reserve_mib=1, split_mib=1, compression="none", chunk_kib=64)
    folder = tmp_path / "run"
    bag = BagWriter(folder, config)
    bag.add_topic(*interfaces.arguments("/flight", "drone_msgs/msg/Flight"))
    for number in range(320):
        bag.write("/flight", interfaces.flight(number, fixes=1000), number, number)
    bag.close()
    files = list(folder.glob("*.mcap"))
    assert len(files) > 10
    broken = folder / "run_3.mcap"
    broken.write_bytes(broken.read_bytes()[:500_000])
    (folder / "metadata.yaml").unlink()
    found = recover(folder)
    with AnyReader([folder]) as reader:
        stamps = [stamp for _, stamp, _ in reader.messages()]
    assert found.repaired
    assert stamps == sorted(stamps)
    assert 300 < len(stamps) == found.messages["/flight"] < 320


@pytest.mark.parametrize("flush_s", [1.0, 0.2])
def test_a_killed_recorder_loses_no_more_than_its_flush_interval(tmp_path, flush_s):
    folder = tmp_path / "run"
    step_s = 0.002
    interval = round(flush_s / step_s)
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(folder), str(flush_s), str(step_s)],
        env={"PYTHONPATH": ":".join(sys.path)},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        printed = [process.stdout.readline() for _ in range(round(2.3 * interval))]
    finally:
        process.kill()
    printed += process.stdout.readlines()
    process.wait(10)
    given = int([line for line in printed if line.endswith("\n")][-1])
    assert verify(folder)
    found = recover(folder)
    with Reader(folder) as reader:
        assert reader.message_count == found.messages["/a"] > interval
        stamps = [stamp for _, stamp, _ in reader.messages()]
    assert stamps == list(range(1, found.messages["/a"] + 1))
    assert given - stamps[-1] <= interval, f"{given - stamps[-1]} messages lost"
