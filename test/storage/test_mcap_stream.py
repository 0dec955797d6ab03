# SPDX-License-Identifier: Apache-2.0
"""Our MCAP writer against its twin, the `mcap` library's own."""

import io
import tracemalloc

import numpy as np
import pytest
from mcap.reader import make_reader
from mcap.stream_reader import StreamReader
from mcap.writer import CompressionType, Writer

from worldsystem_storage.mcap_stream import McapStream

TWIN = {"lz4": CompressionType.LZ4, "zstd": CompressionType.ZSTD, "none": CompressionType.NONE}
CHUNK_BYTES = 5000
INFO = {"serialized_metadata": "x"}


def messages():
    """Three topics, the second announced late; repeating bytes, from none to over a chunk."""
    rng = np.random.default_rng(0)
    for number in range(120):
        channel = 1 + number % (2 if number < 60 else 3)
        size = 0 if number % 10 == 5 else int(rng.integers(50, 1000))
        yield channel, rng.bytes(8) * size, 10**18 + number


def ours(compression):
    stream = io.BytesIO()
    mcap = McapStream(stream, "test", compression, CHUNK_BYTES)
    for number, (channel, data, stamp_ns) in enumerate(messages()):
        if number in (0, 1, 60):
            mcap.add_channel(f"/{channel}", mcap.add_schema(f"p/msg/T{channel}", "bool a"), {})
        mcap.add_message(channel, data, stamp_ns, stamp_ns - 1)
        if number == 33:
            mcap.flush()
    mcap.finish("rosbag2", INFO)
    return stream.getvalue()


def theirs(compression):
    stream = io.BytesIO()
    mcap = Writer(stream, chunk_size=CHUNK_BYTES, compression=TWIN[compression])
    mcap.start("ros2", "test")
    counts = {1: 0, 2: 0, 3: 0}
    for number, (channel, data, stamp_ns) in enumerate(messages()):
        if number in (0, 1, 60):
            schema = mcap.register_schema(f"p/msg/T{channel}", "ros2msg", b"bool a")
            mcap.register_channel(f"/{channel}", "cdr", schema, {})
        mcap.add_message(channel, stamp_ns, data, stamp_ns - 1, counts[channel])
        counts[channel] += 1
        if number == 33:
            mcap.flush()
    mcap.flush()
    mcap.add_metadata("rosbag2", INFO)
    mcap.finish()
    return stream.getvalue()


@pytest.mark.parametrize("compression", TWIN)
def test_messages_and_their_index_are_byte_for_byte_those_of_the_library(compression):
    our, their = ours(compression), theirs(compression)
    ends = [make_reader(io.BytesIO(b)).get_summary().chunk_indexes[-1] for b in (our, their)]
    (end,) = {c.chunk_start_offset + c.chunk_length + c.message_index_length for c in ends}
    assert our[:end] == their[:end]


@pytest.mark.parametrize("compression", TWIN)
def test_the_summary_says_the_same_as_that_of_the_library(compression):
    our, their = (
        make_reader(io.BytesIO(content)).get_summary()
        for content in (ours(compression), theirs(compression))
    )
    assert our.statistics == their.statistics
    assert our.channels == their.channels
    assert our.schemas == their.schemas
    assert our.chunk_indexes == their.chunk_indexes
    assert our.metadata_indexes == their.metadata_indexes


def test_every_checksum_is_right_and_every_offset_leads_to_its_group():
    content = ours("lz4")
    assert sum(1 for _ in StreamReader(io.BytesIO(content), validate_crcs=True).records) > 120
    reader = make_reader(io.BytesIO(content), validate_crcs=True)
    assert sum(1 for _ in reader.iter_messages()) == 120
    offsets = [r for r in StreamReader(io.BytesIO(content)).records if hasattr(r, "group_start")]
    assert len(offsets) == 5
    assert all(content[offset.group_start] == offset.group_opcode for offset in offsets)


@pytest.mark.parametrize("compression", ["lz4", "zstd"])
def test_a_chunk_that_would_not_shrink_is_stored_as_it_is(compression):
    stream = io.BytesIO()
    mcap = McapStream(stream, "test", compression, CHUNK_BYTES)
    channel = mcap.add_channel("/a", mcap.add_schema("p/msg/A", "bool a"), {})
    noise = np.random.default_rng(0).bytes(100_000)
    for number, data in enumerate((noise, bytes(100_000))):
        mcap.add_message(channel, data, number, number)
    mcap.finish("rosbag2", INFO)
    stream.seek(0)
    reader = make_reader(stream, validate_crcs=True)
    used = [chunk.compression for chunk in reader.get_summary().chunk_indexes]
    assert used == ["", compression]
    assert [m.data for *_, m in reader.iter_messages()] == [noise, bytes(100_000)]


def test_a_hundred_thousand_flushes_keep_less_than_30_mb_and_each_is_found_again(tmp_path):
    flushes, topics = 3000, 5  # the part of 100,000 that a test has time for
    with (tmp_path / "slim.mcap").open("wb") as stream:
        mcap = McapStream(stream, "test", "none", CHUNK_BYTES)
        schema = mcap.add_schema("p/msg/A", "bool a")
        channels = [mcap.add_channel(f"/{n}", schema, {}) for n in range(topics)]
        tracemalloc.start()
        try:
            for number in range(flushes):
                for channel in channels:
                    mcap.add_message(channel, b"slim", number, number)
                mcap.flush()
            kept_bytes, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert kept_bytes / flushes * 100_000 < 30e6
        mcap.finish("rosbag2", INFO)
    with (tmp_path / "slim.mcap").open("rb") as stream:
        reader = make_reader(stream, validate_crcs=True)
        summary = reader.get_summary()
        assert summary.statistics.chunk_count == len(summary.chunk_indexes) == flushes
        assert summary.statistics.message_end_time == flushes - 1
        read = [message.log_time for *_, message in reader.iter_messages()]
    assert read == [number for number in range(flushes) for _ in range(topics)]
