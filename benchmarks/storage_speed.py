# SPDX-License-Identifier: Apache-2.0
"""How fast mixed topics are recorded, beside plain writes to the same disk and `rosbags`."""

from __future__ import annotations

import os
import random
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rosbags.rosbag2 import Reader, StoragePlugin
from rosbags.rosbag2 import Writer as RosbagsWriter

from worldsystem_storage.bag_writer import BagWriter
from worldsystem_storage.config import StorageConfig

MB = 1_000_000
QUEUE_BYTES = 128 * MB
_SYNC_S = 0.5
TYPE, SCHEMA = "bench_msgs/msg/Bytes", "uint8[] data\n"
HASH = "RIHS01_" + 64 * "0"
Messages = list[tuple[str, bytes]]


@dataclass(frozen=True)
class Sustained:
    """A paced recording: what was offered and written, and what it cost."""

    rate_mbps: float
    seconds: float
    offered: int
    written: int
    read_back: int
    grown_mb: float
    cpu_share: float


def second_of_a_run() -> Messages:
    """One second of messages: 30 H.264 pictures, 2 point maps, 10 mesh deltas, 200 readings."""
    rng = np.random.default_rng(0)
    grid = np.stack(np.meshgrid(np.arange(512), np.arange(384)), -1).astype(np.float32)
    depth = 3.0 + np.cumsum(rng.normal(0, 1e-3, grid.shape[:2]), axis=1, dtype=np.float32)
    points = np.concatenate([grid * depth[..., None] / 400, depth[..., None]], -1).tobytes()
    found = [("/video", rng.bytes(40_000)) for _ in range(30)]
    found += [("/keyframe", points)] * 2
    found += [("/mesh", rng.bytes(60_000)) for _ in range(10)]
    found += [("/imu", rng.bytes(320)) for _ in range(200)]
    random.Random(0).shuffle(found)
    return [(topic, cdr(data)) for topic, data in found]


def cdr(data: bytes) -> bytes:
    """`data` as the CDR of a message with one sequence of bytes."""
    return b"\x00\x01\x00\x00" + len(data).to_bytes(4, "little") + data


def write_bag(
    folder: Path, messages: Messages, size: int, compression: str, *, sync: bool = True
) -> float:
    """MB/s of message bytes into a bag; the sender waits instead of dropping."""
    bag = new_writer(folder, messages, compression, sync=sync)
    start = time.perf_counter()
    written, count = 0, 0
    while written < size:
        while bag.state().waiting_bytes > QUEUE_BYTES:
            time.sleep(0.002)
        for topic, data in messages:
            bag.write(topic, data, count, count)
            written, count = written + len(data), count + 1
    accounts = bag.close(timeout_s=240.0)
    if any(account.dropped for account in accounts.values()):
        raise SystemExit(f"messages were dropped: {accounts}")
    return written / (time.perf_counter() - start) / MB


def write_file(
    path: Path,
    messages: Messages,
    size: float,
    seconds: float = float("inf"),
    *,
    synced: bool = False,
) -> float:
    """MB/s of the same bytes into one bare file, in writes of a second's messages.

    So many bytes, or for so long; synced at the end, which is the least that can be asked, and
    where it is `synced` also meanwhile, which a disk may be quicker by.
    """
    second = b"".join(data for _, data in messages)
    start = time.perf_counter()
    written = 0
    with (
        path.open("wb", buffering=0) as stream,
        _syncing(stream.fileno()) if synced else nullcontext(),
    ):
        while written < size and time.perf_counter() - start < seconds:
            written += stream.write(second)
        os.fsync(stream.fileno())
    return written / (time.perf_counter() - start) / MB


@contextmanager
def _syncing(descriptor: int) -> Iterator[None]:
    """Twice a second, in a thread, as the recorder's files are."""
    over = threading.Event()

    def sync() -> None:
        while not over.wait(_SYNC_S):
            os.fdatasync(descriptor)

    thread = threading.Thread(target=sync)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def cpu_per_mb(folder: Path, messages: Messages, size: int) -> tuple[float, float]:
    """Processor time [ms/MB] of our recorder and of `rosbags`' writer.

    Both uncompressed and without syncs, which `rosbags` does not make.
    """
    begin = time.process_time()
    write_bag(folder / "ours", messages, size, "none", sync=False)
    ours_s = time.process_time() - begin
    begin = time.process_time()
    _write_with_rosbags(folder / "theirs", messages, size)
    theirs_s = time.process_time() - begin
    for name in ("ours", "theirs"):
        shutil.rmtree(folder / name)
    return 1e3 * ours_s / (size / MB), 1e3 * theirs_s / (size / MB)


def _write_with_rosbags(folder: Path, messages: Messages, size: int) -> None:
    with RosbagsWriter(folder, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        lines = {
            topic: writer.add_connection(topic, TYPE, msgdef=SCHEMA, rihs01=HASH)
            for topic in sorted({topic for topic, _ in messages})
        }
        written, count = 0, 0
        while written < size:
            for topic, data in messages:
                writer.write(lines[topic], count, data)
                written, count = written + len(data), count + 1


def sustain(folder: Path, messages: Messages, rate_mbps: float, seconds: float) -> Sustained:
    """Record at a steady rate as live senders do: nobody waits, what is too much is dropped."""
    bag = new_writer(folder, messages, "none")
    begin_s, cpu_s = time.perf_counter(), time.process_time()
    sent, offered, settled_mb, peak_mb = 0, 0, 0.0, 0.0
    while (now_s := time.perf_counter() - begin_s) < seconds:
        if sent > now_s * rate_mbps * MB:
            time.sleep(0.001)
            continue
        for topic, data in messages:
            bag.write(topic, data, offered, offered)
            sent, offered = sent + len(data), offered + 1
        if now_s > 0.25 * seconds:
            settled_mb = settled_mb or resident_mb()
            peak_mb = max(peak_mb, resident_mb())
    took_s = time.perf_counter() - begin_s
    written = sum(count.written for count in bag.close(timeout_s=240.0).values())
    with Reader(folder) as reader:
        read_back = reader.message_count
    return Sustained(
        sent / took_s / MB,
        took_s,
        offered,
        written,
        read_back,
        peak_mb - settled_mb,
        (time.process_time() - cpu_s) / took_s,
    )


def new_writer(
    folder: Path, messages: Messages, compression: str, *, sync: bool = True
) -> BagWriter:
    """A recorder that knows the topics of `messages`."""
    config = StorageConfig(compression=compression, queue_messages=1 << 20, sync=sync)
    bag = BagWriter(folder, config)
    for topic in sorted({topic for topic, _ in messages}):
        bag.add_topic(topic, TYPE, SCHEMA, "")
    return bag


def resident_mb() -> float:
    """Memory of this process that is resident and its own, not the page cache's."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024 / MB
    return float("nan")
