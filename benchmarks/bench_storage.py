# SPDX-License-Identifier: Apache-2.0
"""How fast a run is recorded against the bare disk, and what a killed recorder leaves.

`storage.write_mbps` counts the bytes of the messages handed in [MB/s], closing and fsync included;
`storage.write_vs_disk` divides it by the rate of one file of the same size written and synced
without a format. Kills are SIGKILL at random moments; what is lost is the time from the newest
recovered message to the kill.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from harness import QUICK, Benchmark
from rosbags.rosbag2 import Reader

from worldsystem_core.errors import WorldSystemError
from worldsystem_storage.bag_writer import BagWriter
from worldsystem_storage.config import StorageConfig
from worldsystem_storage.recover import recover

MB = 1_000_000
SIZE_BYTES = (200 if QUICK else 1000) * MB
RUNS = 2 if QUICK else 5
KILLS = 4 if QUICK else 20
CUTS = 100 if QUICK else 1000
QUEUE_BYTES = 128 * MB
SECOND_NS = 1_000_000_000
SCHEMA = "uint8[] data\n"
RECORDER = textwrap.dedent("""
    import os, sys, time
    from pathlib import Path
    from worldsystem_storage.bag_writer import BagWriter
    from worldsystem_storage.config import StorageConfig
    bag = BagWriter(Path(sys.argv[1]), StorageConfig())
    bag.add_topic("/video", "bench_msgs/msg/Bytes", "uint8[] data\\n", "")
    picture = os.urandom(3_000)
    while True:
        bag.write("/video", bytes(4) + len(picture).to_bytes(4, "little") + picture,
                  time.time_ns(), time.time_ns())
        time.sleep(1 / 120)
""")


def second_of_a_run() -> list[tuple[str, bytes]]:
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
    return [(topic, _cdr(data)) for topic, data in found]


def write_bag(folder: Path, messages: list[tuple[str, bytes]]) -> float:
    """MB/s of message bytes into a bag; the sender waits instead of dropping."""
    bag = BagWriter(folder, StorageConfig(queue_messages=1 << 20))
    for topic in sorted({topic for topic, _ in messages}):
        bag.add_topic(topic, "bench_msgs/msg/Bytes", SCHEMA, "")
    start = time.perf_counter()
    written, count = 0, 0
    while written < SIZE_BYTES:
        while bag.state().waiting_bytes > QUEUE_BYTES:
            time.sleep(0.002)
        for topic, cdr in messages:
            bag.write(topic, cdr, count, count)
            written, count = written + len(cdr), count + 1
    accounts = bag.close(timeout_s=120.0)
    if any(account.dropped for account in accounts.values()):
        raise SystemExit(f"messages were dropped: {accounts}")
    return written / (time.perf_counter() - start) / MB


def write_file(path: Path, messages: list[tuple[str, bytes]]) -> float:
    """MB/s of the same bytes into one bare file, in writes of a second's messages, then fsync."""
    second = b"".join(cdr for _, cdr in messages)
    start = time.perf_counter()
    written = 0
    with path.open("wb") as stream:
        while written < SIZE_BYTES:
            written += stream.write(second)
        stream.flush()
        os.fsync(stream.fileno())
    return written / (time.perf_counter() - start) / MB


def kill_recorder(folder: Path, after_s: float) -> tuple[float, bool]:
    """Seconds lost by a SIGKILL `after_s` after the first flush; whether the bag is readable."""
    process = subprocess.Popen(
        [sys.executable, "-c", RECORDER, str(folder)],
        env=os.environ | {"PYTHONPATH": ":".join(sys.path)},
    )
    file = folder / f"{folder.name}_0.mcap"
    try:
        while not (file.exists() and file.stat().st_size > 10_000):
            if process.poll() is not None:
                raise SystemExit("the recorder ended by itself")
            time.sleep(0.01)
        time.sleep(after_s)
    finally:
        killed_ns = time.time_ns()
        process.kill()
        process.wait(10)
    try:
        recover(folder)
        with Reader(folder) as reader:
            newest_ns = max(stamp_ns for _, stamp_ns, _ in reader.messages())
    except (WorldSystemError, OSError, ValueError, KeyError) as error:
        print(f"unreadable after a kill: {error!r}")
        return 0.0, False
    return (killed_ns - newest_ns) / SECOND_NS, True


def failed_truncations(folder: Path, messages: list[tuple[str, bytes]]) -> int:
    """How many of `CUTS` truncated files do not give back every message of their whole chunks."""
    bag = BagWriter(folder, StorageConfig())
    for topic in sorted({topic for topic, _ in messages}):
        bag.add_topic(topic, "bench_msgs/msg/Bytes", SCHEMA, "")
    for count, (topic, cdr) in enumerate(messages):
        bag.write(topic, cdr, count, count)
    bag.close()
    whole = (folder / f"{folder.name}_0.mcap").read_bytes()
    return sum(not ok for ok in _recovers(folder.with_suffix(".cut.mcap"), whole))


def _recovers(path: Path, whole: bytes) -> Iterator[bool]:
    rng = np.random.default_rng(0)
    before = 0
    for cut in sorted(int(c) for c in rng.integers(0, len(whole), CUTS)):
        path.write_bytes(whole[:cut])
        try:
            found = sum(recover(path).messages.values())
            with Reader(path) as reader:
                read = sum(1 for _ in reader.messages())
        except Exception as error:  # any error at all is the failure that is counted
            print(f"cut at {cut}: {error!r}")
            yield False
            continue
        yield read == found >= before
        before = max(before, found)


def _cdr(data: bytes) -> bytes:
    return b"\x00\x01\x00\x00" + len(data).to_bytes(4, "little") + data


def main() -> None:
    """Measure and write `results/storage.json`."""
    bench = Benchmark("storage")
    messages = second_of_a_run()
    folder = Path(tempfile.mkdtemp(prefix="bench_storage_", dir=os.environ.get("BENCH_FOLDER")))
    try:
        bag_mbps, disk_mbps = [], []
        for run in range(RUNS):
            disk_mbps.append(write_file(folder / "bare", messages))
            (folder / "bare").unlink()
            bag_mbps.append(write_bag(folder / f"bag{run}", messages))
            shutil.rmtree(folder / f"bag{run}")
        note = f"{SIZE_BYTES // MB} MB, lz4; bare file {np.median(disk_mbps):.0f} MB/s"
        ratios = [bag / disk for bag, disk in zip(bag_mbps, disk_mbps, strict=True)]
        bench.add("write_vs_disk", ratios, "x", note=note)
        bench.add("write_mbps", bag_mbps, "MB/s", note="message bytes, fsync included")
        waits_s = np.random.default_rng(1).uniform(0.2, 2.2, KILLS)
        kills = [kill_recorder(folder / f"kill{n}", float(s)) for n, s in enumerate(waits_s)]
        lost_s = [seconds for seconds, readable in kills if readable]
        bench.add("lost_after_kill_s_max", max(lost_s, default=np.inf), "s", note=f"{KILLS} kills")
        unreadable = sum(not readable for _, readable in kills)
        bench.add("unreadable_after_kill", unreadable, "", note=f"of {KILLS}, after recover")
        failed = failed_truncations(folder / "whole", messages)
        bench.add("truncations_failed", failed, "", note=f"of {CUTS} cuts")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(bench.write())


if __name__ == "__main__":
    main()
