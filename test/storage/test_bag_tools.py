# SPDX-License-Identifier: Apache-2.0
"""Bags are counted, checked, cut and joined without losing a message or a byte."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from mcap.reader import make_reader
from rosbags.rosbag2 import Reader

from worldsystem_storage.bag_check import verify
from worldsystem_storage.bag_metadata import qos_yaml
from worldsystem_storage.bag_tools import cut, info, merge
from worldsystem_storage.bag_writer import BagWriter
from worldsystem_storage.config import StorageConfig
from worldsystem_storage.errors import StorageError

SECOND = 10**9
TEXT = "string data\n"
LATCHED = qos_yaml("reliable", "transient_local", 1)


def cdr(text: str) -> bytes:
    data = text.encode() + b"\0"
    return b"\0\1\0\0" + len(data).to_bytes(4, "little") + data


def make_bag(
    folder: Path, topics: dict[str, range], *, qos: str = "", kind: str = "std_msgs/msg/String"
) -> Path:
    """A message at each second of each topic's range, telling topic and second."""
    bag = BagWriter(folder, StorageConfig(reserve_mib=1))
    for topic in topics:
        bag.add_topic(topic, kind, TEXT, "", qos)
    entries = [(second, topic) for topic, seconds in topics.items() for second in seconds]
    for second, topic in sorted(entries):
        bag.write(topic, cdr(f"{topic} {second}"), second * SECOND, second * SECOND)
    bag.close()
    return folder


def content(folder: Path) -> list[tuple[str, int, bytes]]:
    with Reader(folder) as reader:
        return [(c.topic, stamp, bytes(raw)) for c, stamp, raw in reader.messages()]


@pytest.fixture
def bag(tmp_path) -> Path:
    return make_bag(tmp_path / "bag", {"/a": range(1, 11), "/b": range(1, 11, 3)})


def test_info_counts_what_was_written(bag):
    found = info(bag)
    assert [(t.name, t.messages) for t in found.topics] == [("/a", 10), ("/b", 4)]
    assert found.messages == 14
    assert found.duration_s == 9.0
    assert found.topics[0].size_bytes == sum(len(cdr(f"/a {n}")) for n in range(1, 11))


def test_a_sound_bag_has_no_problems_and_an_empty_one_neither(bag, tmp_path):
    assert verify(bag) == []
    assert verify(make_bag(tmp_path / "empty", {"/a": range(0)})) == []
    assert info(tmp_path / "empty").messages == 0


def test_verify_finds_any_damaged_byte_of_the_messages(bag):
    file = next(bag.glob("*.mcap"))
    whole = file.read_bytes()
    with file.open("rb") as stream:
        chunk = make_reader(stream).get_summary().chunk_indexes[0]
    end = chunk.chunk_start_offset + chunk.chunk_length
    rng = np.random.default_rng(0)
    for at in rng.integers(end - chunk.compressed_size, end, 25):
        damaged = bytearray(whole)
        damaged[at] ^= 0x55
        file.write_bytes(damaged)
        assert verify(bag), f"a change at byte {at} went unnoticed"
    file.write_bytes(whole)
    assert verify(bag) == []


def test_verify_names_a_missing_end_and_wrong_metadata(bag):
    file = next(bag.glob("*.mcap"))
    whole = file.read_bytes()
    file.write_bytes(whole[:-30])
    assert "ends in the middle of a record" in verify(bag)[0]
    assert info(bag).messages == 14
    assert info(bag).problems
    file.write_bytes(whole)
    metadata = bag / "metadata.yaml"
    metadata.write_text(metadata.read_text().replace("message_count: 14", "message_count: 15"))
    assert "metadata.yaml promises 15 messages, 14 are there" in verify(bag)[0]
    metadata.unlink()
    assert "missing" in verify(bag)[0]


def test_a_cut_keeps_every_byte_between_its_times(bag, tmp_path):
    assert cut(bag, tmp_path / "part", start_s=2.0, end_s=5.0).messages == 5
    assert content(tmp_path / "part") == [
        entry for entry in content(bag) if 3 * SECOND <= entry[1] <= 6 * SECOND
    ]
    assert verify(tmp_path / "part") == []
    assert cut(bag, tmp_path / "topic", topics="^/b$").messages == 4


def test_a_cut_begins_with_what_was_latched_before_it(tmp_path):
    bag = make_bag(tmp_path / "bag", {"/map": range(1, 4), "/other": range(1, 11)}, qos=LATCHED)
    cut(bag, tmp_path / "part", start_s=5.0, topics="map|other")
    first = [entry for entry in content(tmp_path / "part") if entry[0] == "/map"]
    assert first == [("/map", 6 * SECOND, cdr("/map 3"))]


def test_a_cut_begins_with_the_static_transforms_of_every_publisher(tmp_path):
    topics = {"/robot/tf_static": range(1, 4), "/other": range(1, 11)}
    bag = make_bag(tmp_path / "bag", topics, kind="tf2_msgs/msg/TFMessage")
    cut(bag, tmp_path / "part", start_s=5.0)
    static = [raw for name, _, raw in content(tmp_path / "part") if name == "/robot/tf_static"]
    assert static == [cdr(f"/robot/tf_static {second}") for second in (1, 2, 3)]


def test_a_cut_of_latched_topics_alone_is_not_empty(tmp_path):
    bag = make_bag(tmp_path / "bag", {"/map": range(1, 4), "/other": range(1, 11)}, qos=LATCHED)
    assert cut(bag, tmp_path / "part", start_s=5.0, topics="map").messages == 1
    assert content(tmp_path / "part") == [("/map", 6 * SECOND, cdr("/map 3"))]


def test_what_is_latched_by_number_as_older_recorders_write_it_comes_too(tmp_path):
    numbers = LATCHED.replace("transient_local", "1").replace("reliable", "1")
    assert "durability: 1" in numbers
    bag = make_bag(tmp_path / "bag", {"/map": range(1, 4), "/other": range(1, 11)}, qos=numbers)
    cut(bag, tmp_path / "part", start_s=5.0)
    assert ("/map", 6 * SECOND, cdr("/map 3")) in content(tmp_path / "part")


def test_a_bag_whose_times_begin_at_zero_is_cut_from_there(tmp_path):
    bag = make_bag(tmp_path / "bag", {"/a": range(5)})
    assert info(bag).first_ns == 0
    assert cut(bag, tmp_path / "part", end_s=1.0).messages == 2


@pytest.mark.parametrize("share", [0.0, 0.1, 0.4, 0.6, 0.9, 0.99])
def test_a_bag_that_was_cut_off_is_looked_at_cut_and_joined_up_to_the_break(bag, tmp_path, share):
    file = next(bag.glob("*.mcap"))
    whole = content(bag)
    file.write_bytes(file.read_bytes()[: int(file.stat().st_size * share)])
    found, part, both = info(bag), tmp_path / "part", tmp_path / "both"
    done, merged = cut(bag, part), merge([bag], both)
    assert found.problems
    assert done.problems
    assert merged.problems
    assert found.messages == done.messages == merged.messages
    assert content(part) == content(both) == whole[: found.messages]
    assert verify(part) == []


def test_merged_bags_give_all_messages_by_time(bag, tmp_path):
    other = make_bag(tmp_path / "other", {"/c": range(5, 9)})
    assert merge([bag, other], tmp_path / "both").messages == 18
    both = content(tmp_path / "both")
    assert [stamp for _, stamp, _ in both] == sorted(stamp for _, stamp, _ in both)
    assert sorted(both) == sorted(content(bag) + content(other))


def test_cutting_and_merging_again_gives_the_same_bag(bag, tmp_path):
    cut(bag, tmp_path / "early", end_s=4.5)
    cut(bag, tmp_path / "late", start_s=4.5)
    merge([tmp_path / "late", tmp_path / "early"], tmp_path / "again")
    assert content(tmp_path / "again") == content(bag)


def test_what_cannot_be_done_is_said_and_nothing_is_overwritten(bag, tmp_path):
    with pytest.raises(StorageError, match="exists already"):
        cut(bag, bag)
    with pytest.raises(StorageError, match="no bag at"):
        info(tmp_path / "nothing")
    numbers = make_bag(tmp_path / "numbers", {"/a": range(1, 3)}, kind="std_msgs/msg/Int8")
    with pytest.raises(StorageError, match="std_msgs/msg/Int8 in another"):
        merge([bag, numbers], tmp_path / "mixed")


def test_the_commands_tell_by_their_exit_code(bag, tmp_path, capsys):
    from worldsystem.cli import main

    assert main(["bag", "info", str(bag)]) == 0
    assert "/b" in capsys.readouterr().out
    assert main(["bag", "verify", str(bag)]) == 0
    assert main(["bag", "cut", str(bag), "--out", str(tmp_path / "c"), "--end", "2"]) == 0
    assert main(["bag", "merge", str(bag), str(tmp_path / "c"), "--out", str(tmp_path / "m")]) == 0
    (bag / "metadata.yaml").unlink()
    assert main(["bag", "verify", str(bag)]) == 1
    assert main(["bag", "info", str(tmp_path / "nothing")]) == 2
    capsys.readouterr()
    file = next(bag.glob("*.mcap"))
    file.write_bytes(file.read_bytes()[:-100])
    assert main(["bag", "info", str(bag)]) == 1
    assert "not all could be read: bag_0.mcap: at byte" in capsys.readouterr().err
    assert main(["bag", "cut", str(bag), "--out", str(tmp_path / "c2")]) == 1
    assert main(["bag", "merge", str(bag), "--out", str(tmp_path / "m2")]) == 1
    capsys.readouterr()
    assert main(["bag", "recover", str(bag)]) == 0
    told = capsys.readouterr().out
    assert "repaired" in told
    assert "lost: what came in at most 0.5 s after the newest message" in told
    assert main(["bag", "verify", str(bag)]) == 0
    assert main(["bag", "cut", str(bag), "--out", str(tmp_path / "c3"), "--topics", "["]) == 2
