# SPDX-License-Identifier: Apache-2.0
"""MCAP files as others write them are cut, joined and imported with all that they hold."""

from __future__ import annotations

import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from mcap.reader import make_reader
from mcap.writer import Writer
from rosbags.highlevel import AnyReader
from rosbags.rosbag2 import Reader

from worldsystem_storage.bag_check import verify
from worldsystem_storage.bag_metadata import qos_yaml
from worldsystem_storage.bag_tools import cut, info, merge
from worldsystem_storage.errors import StorageError
from worldsystem_storage.importing.sources import import_path
from worldsystem_storage.recover import recover

VIDEO = "foxglove_msgs/msg/CompressedVideo"
CODED = [0, 3, 1, 2, 6, 4, 5, 9, 7, 8, 12, 10, 11]  # I P B B P B B …, by place in time
COPIES: dict[str, Callable[[Path, Path], object]] = {
    "cut": cut,
    "merge": lambda path, out: merge([path], out),
    "import": import_path,
}


def write_mcap(
    path: Path, topics: dict[str, tuple[str, list[int]]], chunk_size: int = 300, **options: object
) -> Path:
    """Topic by topic its messages, that tell their numbers, at the times given [ns]."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as stream:
        writer = Writer(stream, chunk_size=chunk_size, **options)
        writer.start("ros2", "foreign")
        for topic, (kind, times_ns) in topics.items():
            schema = writer.register_schema(kind, "ros2msg", b"uint8[] data\n")
            channel = writer.register_channel(topic, "cdr", schema)
            for number, time_ns in enumerate(times_ns):
                data = b"\0\1\0\0" + number.to_bytes(4, "little") + bytes(20)
                writer.add_message(channel, time_ns, data, publish_time=time_ns)
        writer.finish()
    return path


def played(folder: Path) -> dict[str, list[tuple[int, int, int]]]:
    """Number, time of recording and of publishing of each topic's messages, as players take them:
    by their times."""
    found: dict[str, list[tuple[int, int, int]]] = {}
    (file,) = folder.glob("*.mcap")
    with file.open("rb") as stream:
        for _, channel, message in make_reader(stream).iter_messages():
            number = int.from_bytes(message.data[4:8], "little")
            entry = (number, message.log_time, message.publish_time)
            found.setdefault(channel.topic, []).append(entry)
    return found


@pytest.mark.parametrize("copy", COPIES)
def test_video_with_b_frames_stays_in_coding_order_where_stamps_are_times(tmp_path, copy):
    stamps_ns = [1000 + 100 * place for place in CODED]
    imu_ns = list(range(1000, 2300, 50))
    foreign = write_mcap(
        tmp_path / "foreign.mcap", {"/imu": ("p/msg/Imu", imu_ns), "/video": (VIDEO, stamps_ns)}
    )
    COPIES[copy](foreign, tmp_path / "copy")
    found = played(tmp_path / "copy")
    assert [number for number, _, _ in found["/video"]] == list(range(len(CODED)))
    assert [published for _, _, published in found["/video"]] == stamps_ns
    assert found["/imu"] == [(n, time_ns, time_ns) for n, time_ns in enumerate(imu_ns)]
    assert verify(tmp_path / "copy") == []


def test_video_with_b_frames_stays_in_coding_order_also_from_one_file_to_the_next(tmp_path):
    stamps_ns = [1000 + 100 * place for place in CODED]
    for number, part in enumerate((stamps_ns[:5], stamps_ns[5:])):
        write_mcap(tmp_path / "bag" / f"bag_{number}.mcap", {"/video": (VIDEO, part)})
    merge([tmp_path / "bag"], tmp_path / "copy")
    assert [published for _, _, published in played(tmp_path / "copy")["/video"]] == stamps_ns


def test_other_topics_are_sorted_by_their_times(tmp_path):
    foreign = write_mcap(
        tmp_path / "foreign.mcap", {"/a": ("p/msg/A", [5, 9, 7]), "/b": ("p", [6])}
    )
    merge([foreign], tmp_path / "copy")
    assert [time_ns for _, time_ns, _ in played(tmp_path / "copy")["/a"]] == [5, 7, 9]


@pytest.mark.parametrize("copy", COPIES)
@pytest.mark.parametrize(
    "lacking", ["repeat_channels", "repeat_schemas", "use_chunking", "use_statistics"]
)
def test_what_an_index_does_not_repeat_is_read_from_the_file(tmp_path, copy, lacking):
    topics = {"/a": ("p/msg/A", list(range(1, 60, 2))), "/b": ("p/msg/B", list(range(0, 60, 2)))}
    foreign = write_mcap(tmp_path / "foreign.mcap", topics, **{lacking: False})
    COPIES[copy](foreign, tmp_path / "copy")
    assert played(tmp_path / "copy") == {
        name: [(n, time_ns, time_ns) for n, time_ns in enumerate(times_ns)]
        for name, (_, times_ns) in topics.items()
    }


def test_a_part_of_a_file_that_is_in_no_order_is_cut_from_all_of_it(tmp_path):
    topics = {"/a": ("p/msg/A", list(range(60))), "/b": ("p/msg/B", list(range(60)))}
    foreign = write_mcap(tmp_path / "foreign.mcap", topics, use_chunking=False)
    cut(foreign, tmp_path / "part", start_s=20e-9, end_s=30e-9)
    part = [(number, number, number) for number in range(20, 31)]
    assert played(tmp_path / "part") == {"/a": part, "/b": part}


def test_a_file_without_chunks_is_not_read_into_memory_as_a_whole(tmp_path):
    payload, messages = os.urandom(1 << 20), 48
    path = tmp_path / "foreign.mcap"
    with path.open("wb") as stream:
        writer = Writer(stream, use_chunking=False)
        writer.start("ros2", "foreign")
        channel = writer.register_channel("/a", "cdr", 0)
        for number in range(messages):
            writer.add_message(channel, number, payload, number)
        writer.finish()
    tracemalloc.start()
    try:
        assert merge([path], tmp_path / "copy").messages == messages
        _, most_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most_bytes < 0.4 * messages * len(payload)


def write_several_publishers(path: Path) -> Path:
    """One topic with a channel for each of its publishers, as `mcap merge` leaves it."""
    path.parent.mkdir()
    with path.open("wb") as stream:
        writer = Writer(stream)
        writer.start("ros2", "foreign")
        schema = writer.register_schema("std_msgs/msg/String", "ros2msg", b"string data\n")
        for publisher, durability in enumerate(("volatile", "transient_local", "volatile")):
            qos = {"offered_qos_profiles": qos_yaml("reliable", durability, 1 + publisher % 2)}
            channel = writer.register_channel("/a", "cdr", schema, qos)
            writer.add_message(channel, publisher, b"\0\1\0\0\1\0\0\0\0", publisher)
        writer.finish()
    return path


def test_a_topic_of_several_publishers_is_made_sound_and_read_whole(tmp_path):
    folder = write_several_publishers(tmp_path / "bag" / "bag_0.mcap").parent
    assert "missing" in verify(folder)[0]
    assert recover(folder).messages == {"/a": 3}
    assert verify(folder) == []
    assert not recover(folder).repaired
    content = yaml.safe_load((folder / "metadata.yaml").read_text())
    entries = content["rosbag2_bagfile_information"]["topics_with_message_count"]
    assert [(e["topic_metadata"]["name"], e["message_count"]) for e in entries] == [
        ("/a", 2),
        ("/a", 1),
    ]
    with Reader(folder) as reader:
        assert [time_ns for _, time_ns, _ in reader.messages()] == [0, 1, 2]
    assert [(t.name, t.messages) for t in info(folder).topics] == [("/a", 3)]


def test_verify_says_which_of_the_counts_in_the_description_is_wrong(tmp_path):
    folder = write_several_publishers(tmp_path / "bag" / "bag_0.mcap").parent
    recover(folder)
    metadata = folder / "metadata.yaml"
    content = yaml.safe_load(metadata.read_text())
    content["rosbag2_bagfile_information"]["topics_with_message_count"][0]["message_count"] = 9
    metadata.write_text(yaml.safe_dump(content))
    (problem,) = verify(folder)
    assert "promises 10 messages when its topics are added up, 3 are there" in problem


def write_texts(path: Path, definition: str, cdr: bytes, *, durability: str = "volatile") -> Path:
    """One message on `/a`, of a type that each bag may define in its own way."""
    with path.open("wb") as stream:
        writer = Writer(stream)
        writer.start("ros2", "foreign")
        schema = writer.register_schema("p/msg/Note", "ros2msg", definition.encode())
        qos = {"offered_qos_profiles": qos_yaml("reliable", durability, 1)}
        channel = writer.register_channel("/a", "cdr", schema, qos)
        writer.add_message(channel, 5, cdr, 5)
        writer.finish()
    return path


def test_two_definitions_of_one_type_are_not_merged_under_one_of_them(tmp_path):
    before = write_texts(tmp_path / "a.mcap", "int32 x\n", b"\0\1\0\0\7\0\0\0")
    after = write_texts(tmp_path / "b.mcap", "int32 y\nint32 x\n", b"\0\1\0\0\1\0\0\0\7\0\0\0")
    with pytest.raises(
        StorageError, match=r"/a is p/msg/Note in both bags, but by two definitions"
    ):
        merge([before, after], tmp_path / "both")


def test_what_differs_in_comments_and_qos_alone_is_merged_and_each_keeps_its_own(tmp_path):
    cdr = b"\0\1\0\0\7\0\0\0"
    plain = write_texts(tmp_path / "a.mcap", "int32 x\n", cdr)
    told = write_texts(tmp_path / "b.mcap", "# [m]\nint32  x\n", cdr, durability="transient_local")
    assert merge([plain, told], tmp_path / "both").messages == 2
    assert verify(tmp_path / "both") == []
    with AnyReader([tmp_path / "both"]) as reader:
        values = [reader.deserialize(raw, c.msgtype).x for c, _, raw in reader.messages()]
        durabilities = {str(c.ext.offered_qos_profiles[0].durability) for c in reader.connections}
    assert values == [7, 7]
    assert len(durabilities) == 2
