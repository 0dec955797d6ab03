# SPDX-License-Identifier: Apache-2.0
"""What a source counts: outcomes of pictures, and telemetry by kind."""

from __future__ import annotations

import threading
from collections import Counter

from worldsystem_core.frames import EncodedFrame, Frame
from worldsystem_core.telemetry import Telemetry
from worldsystem_ingest.passing import PassingSink
from worldsystem_ingest.sink import Sink


class CountingSink(PassingSink):
    """Passes everything on to another sink and counts it; safe from any thread."""

    def __init__(self, sink: Sink) -> None:
        super().__init__(sink)
        self._lock = threading.Lock()
        self.encoded_frames = 0
        self.decoded_frames = 0
        self._samples: Counter[str] = Counter()
        self._drops: Counter[str] = Counter()

    def encoded(self, unit: EncodedFrame) -> None:
        """Count and pass on."""
        self.encoded_frames += 1
        self._sink.encoded(unit)

    def frame(self, frame: Frame) -> None:
        """Count and pass on."""
        self.decoded_frames += 1
        self._sink.frame(frame)

    def measured(self, sample: Telemetry, stream: str) -> None:
        """Count by kind and pass on."""
        with self._lock:
            self._samples[type(sample).__name__] += 1
        self._sink.measured(sample, stream)

    def dropped(self, frame_id: int, reason: str, stream: str) -> None:
        """Count and pass on."""
        with self._lock:
            self._drops[reason] += 1
        self._sink.dropped(frame_id, reason, stream)

    @property
    def untouched(self) -> bool:
        """Whether nothing ever came."""
        with self._lock:
            pictures = self.encoded_frames or self.decoded_frames  # VP8 is decoded only
            return not (pictures or self._drops or self._samples)

    def drops(self) -> dict[str, int]:
        """Pictures let go so far, by reason."""
        with self._lock:
            return dict(self._drops)

    def samples(self) -> dict[str, int]:
        """Telemetry so far, by kind."""
        with self._lock:
            return dict(self._samples)
