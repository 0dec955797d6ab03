# SPDX-License-Identifier: Apache-2.0
"""What kills, cuts and wrong bits cost a recording."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from mcap.reader import make_reader
from rosbags.rosbag2 import Reader
from storage_speed import SCHEMA, TYPE, Messages, cdr

from worldsystem_storage.bag_writer import BagWriter
from worldsystem_storage.config import StorageConfig
from worldsystem_storage.recover import recover

SECOND_NS = 1_000_000_000
LONGEST_S = 20
CHUNK_KIB = 64
Content = list[tuple[str, int, bytes]]


@dataclass(frozen=True)
class Kill:
    """One killed recorder: seconds lost, seconds that `recover` said may be; readable or not."""

    lost_s: float
    said_s: float
    readable: bool


def kill_recorders(folder: Path, kills: int, at_once: int, seed: int) -> list[Kill]:
    """SIGKILL so many recorders, some at once, each 0.2 to 3.2 s after its first flush."""
    waits_s = np.random.default_rng(seed).uniform(0.2, 3.2, kills)
    found: list[Kill] = []
    for begin in range(0, kills, at_once):
        batch = enumerate(waits_s[begin : begin + at_once], begin)
        running = [(_start(folder / f"kill{n}"), folder / f"kill{n}", float(s)) for n, s in batch]
        killed = [(each, _kill_when_due(each[0], *each[1:])) for each in _by_due(running)]
        found += [_examined(run, killed_ns) for (_, run, _), killed_ns in killed]
    return found


def _record(folder: Path) -> None:
    """Video at 120 Hz and readings at 400 Hz, until killed."""
    bag = BagWriter(folder, StorageConfig())
    for topic in ("/video", "/imu"):
        bag.add_topic(topic, TYPE, SCHEMA, "")
    picture, reading, number = cdr(os.urandom(3_000)), cdr(os.urandom(320)), 0
    parent = os.getppid()
    while os.getppid() == parent:
        now_ns = time.time_ns()
        topic, data = ("/imu", reading) if number % 4 else ("/video", picture)
        bag.write(topic, data, now_ns, now_ns)
        number += 1
        time.sleep(1 / 520)


def _start(folder: Path) -> multiprocessing.Process:
    process = multiprocessing.get_context("fork").Process(target=_record, args=(folder,))
    process.start()
    return process  # type: ignore[return-value]  # a fork's Process is one


def _by_due(
    running: list[tuple[multiprocessing.Process, Path, float]],
) -> list[tuple[multiprocessing.Process, Path, float]]:
    """Once all have flushed, in the order in which they are to be killed."""
    deadline_s = time.monotonic() + 60
    for process, run, _ in running:
        file = run / f"{run.name}_0.mcap"
        while not (file.exists() and file.stat().st_size > 10_000):
            if process.exitcode is not None or time.monotonic() > deadline_s:
                raise SystemExit(f"the recorder of {run} did not begin: {process.exitcode}")
            time.sleep(0.005)
    now_s = time.monotonic()
    return sorted(((p, run, now_s + wait_s) for p, run, wait_s in running), key=lambda e: e[2])


def _kill_when_due(process: multiprocessing.Process, run: Path, due_s: float) -> int:
    time.sleep(max(0.0, due_s - time.monotonic()))
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    killed_ns = time.time_ns()
    process.join(30)
    return killed_ns


def _examined(run: Path, killed_ns: int) -> Kill:
    try:
        found = recover(run)
        with Reader(run) as reader:
            newest_ns = max(stamp_ns for _, stamp_ns, _ in reader.messages())
    except Exception as error:  # any error at all is the failure that is counted
        print(f"unreadable after a kill: {error!r}")
        return Kill(0.0, 0.0, readable=False)
    return Kill((killed_ns - newest_ns) / SECOND_NS, found.held_back_s or 0.0, readable=True)


class DamageCourt:
    """Cuts and flips a bag of `messages` and judges what `recover` makes of it.

    A case fails when anything is raised, takes 20 s, gives a message that was not written, or
    gives up more than what was hit: the last chunk of a cut file, one chunk of a flipped one.
    """

    def __init__(self, folder: Path, messages: Messages) -> None:
        self._path = folder / "damaged.mcap"
        bag = BagWriter(folder / "whole", StorageConfig(chunk_kib=CHUNK_KIB, flush_s=60.0))
        for topic in sorted({topic for topic, _ in messages}):
            bag.add_topic(topic, TYPE, SCHEMA, "")
        for count, (topic, data) in enumerate(messages):
            bag.write(topic, data, count, count)
        bag.close()
        file = folder / "whole" / "whole_0.mcap"
        self._whole = file.read_bytes()
        self._written = set(_read(file))
        with file.open("rb") as stream:
            summary = make_reader(stream).get_summary()
        assert summary is not None
        chunks = summary.chunk_indexes
        self._chunk_ends = [c.chunk_start_offset + c.chunk_length for c in chunks]
        self._chunk_counts = [c.message_end_time - c.message_start_time + 1 for c in chunks]
        self.slowest_s = 0.0

    @property
    def size_bytes(self) -> int:
        return len(self._whole)

    def failed_cuts(self, cases: int) -> int:
        """How many of so many files cut at random bytes fail."""
        cuts = np.random.default_rng(0).integers(0, len(self._whole), cases)
        return sum(not self._cut_is_recovered(int(cut)) for cut in cuts)

    def failed_flips(self, cases: int) -> int:
        """How many of so many files with one wrong bit fail."""
        rng = np.random.default_rng(1)
        places = rng.integers(0, len(self._whole), cases)
        return sum(not self._flip_is_recovered(int(at), int(rng.integers(8))) for at in places)

    def _cut_is_recovered(self, cut: int) -> bool:
        whole = sum(
            count
            for end, count in zip(self._chunk_ends, self._chunk_counts, strict=True)
            if end <= cut
        )
        return self._is_recovered(self._whole[:cut], at_least=whole, what=f"cut at {cut}")

    def _flip_is_recovered(self, at: int, bit: int) -> bool:
        flipped = bytearray(self._whole)
        flipped[at] ^= 1 << bit
        least = len(self._written) - max(self._chunk_counts)
        return self._is_recovered(bytes(flipped), at_least=least, what=f"bit {bit} of byte {at}")

    def _is_recovered(self, content: bytes, at_least: int, what: str) -> bool:
        self._path.write_bytes(content)
        begin_s = time.perf_counter()
        try:
            with _limited(LONGEST_S):
                found = recover(self._path)
                there = _read(self._path)
        except BaseException as error:  # any error at all is the failure that is counted
            print(f"{what}: {error!r}")
            return False
        finally:
            for kept in self._path.parent.glob("*.broken*"):
                kept.unlink()
        self.slowest_s = max(self.slowest_s, time.perf_counter() - begin_s)
        promised = sum(found.messages.values())
        good = len(there) == promised >= at_least and set(there) <= self._written
        if not good:
            print(f"{what}: {len(there)} of at least {at_least} messages")
        return good


def _read(path: Path) -> Content:
    with Reader(path) as reader:
        return [(line.topic, stamp, bytes(data)) for line, stamp, data in reader.messages()]


@contextmanager
def _limited(seconds: int) -> Iterator[None]:
    """Raise `TimeoutError` in what takes longer."""

    def late(*_: object) -> None:
        raise TimeoutError(f"not done in {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
