# SPDX-License-Identifier: Apache-2.0
"""What the server adds between a sender's socket and the sink, decoding excluded.

Measured for each picture from just before the sender, a process of its own, hands it to its socket
until `Sink.frame` is called, less the time that the decoder's `feed` took. WebSocket, unmasking,
numbering, clock, the queue between the threads and whatever makes them wait is what is left.
"""

from __future__ import annotations

import threading
import time
from multiprocessing.connection import Connection
from typing import ClassVar
from unittest import mock

import ingest_traffic
import numpy as np
from ingest_sinks import Nowhere

from worldsystem_core.frames import EncodedFrame, Frame
from worldsystem_ingest.codec import live_decoding
from worldsystem_ingest.codec.decoder import Decoder, Outcome
from worldsystem_ingest.config import IngestConfig
from worldsystem_ingest.server import ServerSource


class TimedDecoder(Decoder):
    """Remembers how long each `feed` took [ns]."""

    took_ns: ClassVar[dict[int, int]] = {}

    def feed(self, index: int, data: bytes, is_key: bool) -> list[Outcome]:
        """As the decoder's."""
        began_ns = time.monotonic_ns()
        outcomes = super().feed(index, data, is_key)
        self.took_ns[index] = time.monotonic_ns() - began_ns
        return outcomes


class Late(Nowhere):
    """Notes when each picture was sent and when it was handed on."""

    def __init__(self) -> None:
        self._sent_ns: dict[int, int] = {}
        self.added_ms: list[float] = []

    def encoded(self, unit: EncodedFrame) -> None:
        """Read when it was sent."""
        self._sent_ns[unit.id] = ingest_traffic.read_tag(unit.data)[1]

    def frame(self, frame: Frame) -> None:
        """Note how late it is."""
        late_ns = time.monotonic_ns() - self._sent_ns.pop(frame.id)
        self.added_ms.append((late_ns - TimedDecoder.took_ns[frame.id]) * 1e-6)


def serve(parent: Connection) -> None:
    """A process's work: serve, and on a message tell what was added to each picture [ms]."""
    sink, source = Late(), ServerSource(IngestConfig(port=0))
    with mock.patch.object(live_decoding, "Decoder", TimedDecoder):
        threading.Thread(target=source.run, args=(sink, threading.Event()), daemon=True).start()
        parent.send(source.wait_port(10.0))
        parent.recv()
    decode_ms = np.array(list(TimedDecoder.took_ns.values())) * 1e-6
    parent.send((sink.added_ms, float(np.median(decode_ms))))
