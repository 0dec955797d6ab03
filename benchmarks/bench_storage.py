# SPDX-License-Identifier: Apache-2.0
"""How fast a run is recorded against the bare disk, and what kills, cuts and wrong bits cost.

`storage.write_vs_disk` divides the rate of an uncompressed bag (bytes of the messages handed in,
closing and two syncs a second included) by that of one bare file of the same bytes that is synced
once; the two take turns. The sustained recording runs at 200 MB/s, or at 0.7 of what the disk has
just taken of plain writes for half as long, where that is less. Kills are SIGKILL at random moments
of recorders that run several at once; what is lost is the time from the newest recovered message to
the kill. Cuts and flips are made in memory where there is `/dev/shm`, so that the disk's syncs do
not set their pace.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
from harness import QUICK, Benchmark
from storage_faults import DamageCourt, kill_recorders
from storage_speed import MB, Messages, cpu_per_mb, second_of_a_run, sustain, write_bag, write_file

SIZE_BYTES = (150 if QUICK else 1000) * MB
RUNS = 2 if QUICK else 3
RATE_MBPS, SUSTAINED_S = 200.0, 5.0 if QUICK else 60.0
KILLS, AT_ONCE = (8, 8) if QUICK else (100, 20)
DAMAGED = 60 if QUICK else 1000
SHARED_MEMORY = Path("/dev/shm")


def measure_kills(bench: Benchmark, folder: Path) -> None:
    """Recorders that are killed; before anything has started a thread, since they are forked."""
    kills = kill_recorders(folder, KILLS, AT_ONCE, seed=1)
    lost_s = [kill.lost_s for kill in kills if kill.readable] or [np.inf]
    note = f"{KILLS} kills, {AT_ONCE} recorders at once; median {np.median(lost_s):.2f} s"
    bench.add("lost_after_kill_s_max", max(lost_s), "s", note=note)
    unreadable = sum(not kill.readable for kill in kills)
    bench.add("unreadable_after_kill", unreadable, "", note=f"of {KILLS}, after recover")
    beyond_s = max(kill.lost_s - kill.said_s for kill in kills)
    bench.add("lost_beyond_what_recover_says_s", beyond_s, "s", note="most of all kills")


def measure_speed(bench: Benchmark, folder: Path, messages: Messages) -> None:
    """The bag against the bare disk."""
    rates: dict[str, list[float]] = {"disk": [], "none": [], "lz4": []}
    for _ in range(RUNS):
        bare = []
        for synced in (False, True):
            bare.append(write_file(folder / "bare", messages, SIZE_BYTES, synced=synced))
            (folder / "bare").unlink()
        rates["disk"].append(max(bare))  # the better of both ways
        for compression in ("none", "lz4"):
            bag = folder / compression
            rates[compression].append(write_bag(bag, messages, SIZE_BYTES, compression))
            shutil.rmtree(bag)
    disk_mbps = float(np.median(rates["disk"]))
    note = f"{SIZE_BYTES // MB} MB uncompressed; bare file {disk_mbps:.0f} MB/s"
    bench.add("write_vs_disk", _ratios(rates["none"], rates["disk"]), "x", note=note)
    bench.add("write_vs_disk_lz4", _ratios(rates["lz4"], rates["disk"]), "x", note="as by default")
    bench.add("write_mbps", rates["none"], "MB/s", note="message bytes, syncing included")


def measure_without_disk(bench: Benchmark, messages: Messages) -> None:
    """The same into memory, where nothing but the writer's own work sets the pace."""
    if not os.access(SHARED_MEMORY, os.W_OK):
        return
    with tempfile.TemporaryDirectory(prefix="bench_storage_", dir=SHARED_MEMORY) as name:
        folder, size = Path(name), SIZE_BYTES // 2
        bare, bags = [], []
        for _ in range(RUNS):
            bare.append(write_file(folder / "bare", messages, size))
            (folder / "bare").unlink()
            bags.append(write_bag(folder / "bag", messages, size, "none"))
            shutil.rmtree(folder / "bag")
    bench.add("memory_mbps", bags, "MB/s", note=f"bare file in memory {np.median(bare):.0f} MB/s")
    bench.add("write_vs_memory", _ratios(bags, bare), "x", note="no disk: the writer's own limit")


def measure_processor(bench: Benchmark, folder: Path, messages: Messages) -> None:
    """Processor time of a megabyte, beside `rosbags`' writer."""
    pairs = [cpu_per_mb(folder, messages, SIZE_BYTES) for _ in range(RUNS)]
    ours, theirs = ([pair[at] for pair in pairs] for at in (0, 1))
    note = f"uncompressed, no syncs; rosbags {np.median(theirs):.2f} ms/MB"
    bench.add("cpu_ms_per_mb", ours, "ms/MB", note=note)
    bench.add("cpu_over_rosbags", _ratios(ours, theirs), "x", note="less is better")


def measure_sustained(bench: Benchmark, folder: Path, messages: Messages) -> None:
    """A steady stream of mixed topics, beside what the disk takes of plain writes for long."""
    disk_mbps = write_file(folder / "bare", messages, np.inf, SUSTAINED_S / 2)
    (folder / "bare").unlink()
    done = sustain(folder / "steady", messages, min(RATE_MBPS, 0.7 * disk_mbps), SUSTAINED_S)
    shutil.rmtree(folder / "steady")
    complete = 100.0 * min(done.written, done.read_back) / done.offered
    note = f"for {done.seconds:.0f} s, disk {disk_mbps:.0f} MB/s; {done.cpu_share:.2f} processors"
    bench.add("sustained_mbps", done.rate_mbps, "MB/s", note=note)
    bench.add("messages_complete_percent", complete, "%", note=f"of {done.offered}, read back")
    bench.add("memory_growth_mb", done.grown_mb, "MB", note="after the first quarter, with queue")


def measure_damage(bench: Benchmark, messages: Messages) -> None:
    """Cuts and flips of a bag of a second."""
    base = SHARED_MEMORY if os.access(SHARED_MEMORY, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="bench_storage_", dir=base) as folder:
        small = [(topic, data[:20_000]) for topic, data in messages]
        court = DamageCourt(Path(folder), small)
        cuts, flips = court.failed_cuts(DAMAGED), court.failed_flips(DAMAGED)
    size = f"of a file of {court.size_bytes / MB:.1f} MB"
    bench.add("truncations_failed", cuts, "", note=f"of {DAMAGED} cuts {size}")
    note = f"of {DAMAGED} bits {size}; slowest case {court.slowest_s:.2f} s"
    bench.add("flips_failed", flips, "", note=note)


def _ratios(over: list[float], under: list[float]) -> list[float]:
    return [a / b for a, b in zip(over, under, strict=True)]


def main() -> None:
    """Measure and write `results/storage.json`."""
    bench = Benchmark("storage")
    messages = second_of_a_run()
    folder = Path(tempfile.mkdtemp(prefix="bench_storage_", dir=os.environ.get("BENCH_FOLDER")))
    try:
        measure_kills(bench, folder)
        measure_speed(bench, folder, messages)
        measure_without_disk(bench, messages)
        measure_processor(bench, folder, messages)
        measure_sustained(bench, folder, messages)
        measure_damage(bench, messages)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(bench.write())


if __name__ == "__main__":
    main()
