# SPDX-License-Identifier: Apache-2.0
"""What a source counts: outcomes per picture, faulty messages, bandwidth."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable

from worldsystem_core.frames import Camera, EncodedFrame, Frame
from worldsystem_core.telemetry import Telemetry
from worldsystem_ingest.sink import Sink

_BANDWIDTH_SAMPLE_S = 5.0
_BANDWIDTH_SAMPLES = 10
LOW_BANDWIDTH_MBPS = 3.0


class CountingSink:
    """Passes everything on to another sink and counts it; safe from any thread."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._lock = threading.Lock()
        self.encoded_frames = 0
        self.decoded_frames = 0
        self.telemetry_samples: Counter[str] = Counter()
        self._drops: Counter[str] = Counter()

    def encoded(self, unit: EncodedFrame) -> None:
        """Count and pass on."""
        self.encoded_frames += 1
        self._sink.encoded(unit)

    def frame(self, frame: Frame) -> None:
        """Count and pass on."""
        self.decoded_frames += 1
        self._sink.frame(frame)

    def camera(self, camera: Camera, stream: str) -> None:
        """Pass on."""
        self._sink.camera(camera, stream)

    def measured(self, sample: Telemetry, stream: str) -> None:
        """Count by kind and pass on."""
        with self._lock:
            self.telemetry_samples[type(sample).__name__] += 1
        self._sink.measured(sample, stream)

    def dropped(self, frame_id: int, reason: str, stream: str) -> None:
        """Count and pass on."""
        with self._lock:
            self._drops[reason] += 1
        self._sink.dropped(frame_id, reason, stream)

    def drops(self) -> dict[str, int]:
        """Pictures let go so far, by reason."""
        with self._lock:
            return dict(self._drops)


class Bandwidth:
    """Bit rate of what comes in, over the last 5 s and over ten such samples; for any thread."""

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        self._now_s = now_s
        self._lock = threading.Lock()
        self._samples: deque[float] = deque(maxlen=_BANDWIDTH_SAMPLES)
        self._bytes = 0
        self._since_s = self._now_s()
        self.total_bytes = 0

    def add(self, size_bytes: int) -> None:
        """Count bytes that just came in; the time before the first ones does not count."""
        with self._lock:
            if not self.total_bytes:
                self._samples.clear()
                self._since_s = self._now_s()
            self._close_samples()
            self._bytes += size_bytes
            self.total_bytes += size_bytes

    def now_mbps(self) -> float:
        """Rate of the sample under way, or of the last full one while that is young [Mbit/s]."""
        with self._lock:
            self._close_samples()
            age_s = self._now_s() - self._since_s
            if age_s < 1.0 and self._samples:
                return self._samples[-1]
            return self._bytes * 8e-6 / max(age_s, 0.2)

    def average_mbps(self) -> float | None:
        """Mean of the last ten samples [Mbit/s]; None until there are ten."""
        with self._lock:
            self._close_samples()
            if len(self._samples) < _BANDWIDTH_SAMPLES:
                return None
            return sum(self._samples) / _BANDWIDTH_SAMPLES

    @property
    def low(self) -> bool:
        """Whether video comes in, but on average under 3 Mbit/s."""
        average = self.average_mbps()
        return average is not None and 0 < average < LOW_BANDWIDTH_MBPS

    def _close_samples(self) -> None:
        now_s = self._now_s()
        if now_s - self._since_s > _BANDWIDTH_SAMPLE_S * (_BANDWIDTH_SAMPLES + 1):
            self._samples.extend([0.0] * _BANDWIDTH_SAMPLES)
            self._bytes, self._since_s = 0, now_s
        while now_s - self._since_s >= _BANDWIDTH_SAMPLE_S:
            self._samples.append(self._bytes * 8e-6 / _BANDWIDTH_SAMPLE_S)
            self._bytes = 0
            self._since_s += _BANDWIDTH_SAMPLE_S
