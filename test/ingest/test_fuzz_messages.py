# SPDX-License-Identifier: Apache-2.0
"""Ten thousand damaged messages: nothing escapes, nothing grows, every picture is accounted for."""

from __future__ import annotations

import threading
import time
import tracemalloc
from collections import Counter

import pytest
from coding_lab import Coding, coded, moving_scene
from ingest_lab import MemorySink, packets_of, wait_until
from mutation import mutated

from worldsystem_core.errors import ProtocolError
from worldsystem_ingest.codec.live_decoding import LiveDecoding
from worldsystem_ingest.config import IngestConfig
from worldsystem_ingest.sender.session import SenderSession

MESSAGES = 10_000
SLICE = 500
MOST_HELD_MB = 24.0  # queue, parameter sets and decoder; the storm itself carries 8 MB


class CountingSink(MemorySink):
    """Remembers what became of each id, but no picture."""

    def __init__(self) -> None:
        super().__init__()
        self.ends: Counter[int] = Counter()
        self.passed_on: set[int] = set()
        self.newest: int | None = None

    def encoded(self, unit) -> None:
        self.passed_on.add(unit.id)

    def frame(self, frame) -> None:
        assert not frame.rgb.flags.writeable
        self.ends[frame.id] += 1
        self.newest = frame.id

    def dropped(self, frame_id: int, reason: str, stream: str) -> None:
        assert reason
        self.ends[frame_id] += 1


@pytest.mark.parametrize("broken_pictures", ["skip", "show"])
def test_a_storm_of_damaged_messages_leaves_the_ledger_exact(broken_pictures):
    messages = packets_of(coded(moving_scene(120, 64, 48), Coding(gop=15)))
    config = IngestConfig(broken_pictures=broken_pictures, feedback=False)
    sink, errors, stop = CountingSink(), [], threading.Event()
    reasons: Counter[str] = Counter()
    session: SenderSession
    decoding = LiveDecoding(
        sink, config, lambda: session.camera, lambda reason: reasons.update([reason])
    )
    session = SenderSession(sink, decoding.put, "camera", config, lambda message: None)

    def run() -> None:
        try:
            decoding.run(stop)
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    session.connected()
    tracemalloc.start()
    refused = 0
    for number, message in enumerate(mutated(messages, MESSAGES // 2, seed=7)):
        try:
            session.take_packet(message)
        except ProtocolError:
            refused += 1
        if number % SLICE == 0:
            wait_until(lambda: len(decoding) == 0, 20.0)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    session.connected()
    last = max(sink.passed_on)
    for message in packets_of(coded(moving_scene(10, 64, 48), Coding()), sender_ns=time.time_ns()):
        session.take_packet(message)
    wait_until(lambda: len(decoding) == 0, 20.0)
    stop.set()
    thread.join(10.0)
    decoding.close()

    assert errors == []
    assert refused > 100
    assert sink.newest is not None
    assert sink.newest > last, "after the storm a clean key frame decodes again"
    assert set(sink.ends.values()) == {1}
    assert sink.passed_on <= set(sink.ends)
    assert sorted(sink.ends) == list(range(min(sink.ends), max(sink.ends) + 1))
    assert reasons
    assert peak_bytes < MOST_HELD_MB * 2**20
