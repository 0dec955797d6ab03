# SPDX-License-Identifier: Apache-2.0
"""Faults on demand: what goes wrong with which packet is drawn from the seed, and counted.

A fault belongs to a frame number, not to a moment, so that a slow machine sees the same faults.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float64

from worldsystem_sim.config import SimConfig

LOST, CORRUPTED, DISCONNECTED, DELAYED = "lost", "corrupted", "disconnected", "delayed"
_EXPOSURE_PERIOD_S = 9.0
MOST_JITTER = 5.0
"""No delay is longer than so many times the mean: a draw in 150 would be."""
NUMBERS_KEPT = 10_000
"""Of each kind of fault: a flight may go on for days."""


@dataclass(frozen=True)
class FrameFaults:
    """What happens to one frame."""

    lost: bool = False
    corrupted: bool = False
    disconnect: bool = False
    delay_s: float = 0.0


@dataclass
class Faults:
    """The plan of faults of one flight, and the account of those that were done.

    `done` has the numbers of the newest frames to which each kind was done.
    """

    loss: float = 0.0
    corrupt: float = 0.0
    jitter_s: float = 0.0
    disconnect_every_s: float = 0.0
    fps: float = 15.0
    seed: int = 0
    done: dict[str, deque[int]] = field(default_factory=dict)
    _counts: Counter[str] = field(default_factory=Counter)

    @staticmethod
    def from_config(config: SimConfig) -> Faults:
        """The faults that the settings ask for."""
        return Faults(
            config.loss,
            config.corrupt,
            config.jitter_s,
            config.disconnect_every_s,
            config.fps,
            config.seed,
        )

    def of_frame(self, number: int) -> FrameFaults:
        """The faults planned for a frame; the same seed and number always give the same."""
        draw = np.random.default_rng([self.seed, 3, number]).random(4)
        per_frame = 1.0 / (self.disconnect_every_s * self.fps) if self.disconnect_every_s else 0.0
        return FrameFaults(
            lost=bool(draw[0] < self.loss),
            corrupted=bool(draw[1] < self.corrupt),
            disconnect=bool(draw[2] < per_frame),
            delay_s=self.jitter_s * float(min(-np.log1p(-draw[3]), MOST_JITTER)),
        )

    def damaged(self, message: bytes, number: int, header_bytes: int) -> bytes:
        """`message` with some bytes behind its header changed."""
        rng = np.random.default_rng([self.seed, 4, number])
        content = bytearray(message)
        for _ in range(max(1, (len(content) - header_bytes) // 400)):
            at = int(rng.integers(header_bytes, len(content)))
            content[at] ^= int(rng.integers(1, 256))
        return bytes(content)

    def note(self, kind: str, number: int) -> None:
        """A fault of `kind` was done to frame `number`."""
        self.done.setdefault(kind, deque(maxlen=NUMBERS_KEPT)).append(number)
        self._counts[kind] += 1

    def counts(self) -> Counter[str]:
        """How many faults of each kind were done."""
        return self._counts.copy()


def exposures(config: SimConfig) -> Float64[np.ndarray, "n"]:
    """Brightness gain of each frame: smooth swings and sudden steps of up to `exposure` stops."""
    t = np.arange(config.frame_count) / config.fps
    if not config.exposure:
        return np.ones(len(t))
    rng = np.random.default_rng([config.seed, 5])
    swing = np.sin(2 * np.pi * t / _EXPOSURE_PERIOD_S + rng.uniform(0, 2 * np.pi))
    steps = rng.uniform(-1.0, 1.0, int(t[-1] // 4.0) + 1)[(t // 4.0).astype(int)]
    return np.asarray(2.0 ** (config.exposure * (0.6 * swing + 0.4 * steps)), dtype=np.float64)
