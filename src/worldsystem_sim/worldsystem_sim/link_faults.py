# SPDX-License-Identifier: Apache-2.0
"""Faults between the sender and the server, one frame at a time, beyond those of `faults`.

They stand apart because rendered flights are kept under the digest of the code that draws them, to
which `faults` belongs by its exposures: what happens on the link changes no picture.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from worldsystem_sim.config import SimConfig
from worldsystem_sim.faults import Faults, FrameFaults

DUPLICATED, REORDERED, TRUNCATED, FLIPPED = "duplicated", "reordered", "truncated", "bit_flipped"
SETS_LOST, STAMPED_BACK = "parameter_sets_lost", "stamped_back"
_MOST_BACK_S = 10.0
_PACKETS = 3  # SPS, PPS and the picture


@dataclass(frozen=True)
class PictureFaults(FrameFaults):
    """What happens to one picture and the packets that carry it."""

    duplicated: bool = False
    reordered: bool = False
    truncated: bool = False
    flipped: bool = False
    sets_lost: tuple[bool, bool] = (False, False)
    back_s: float = 0.0


@dataclass
class LinkFaults(Faults):
    """The plan of all faults of one flight; shares are of pictures, `message_loss` of messages.

    `burst_loss` is the share of pictures that begin a burst in which `burst_frames` are lost.
    """

    message_loss: float = 0.0
    burst_loss: float = 0.0
    burst_frames: int = 8
    duplicate: float = 0.0
    reorder: float = 0.0
    truncate: float = 0.0
    bit_flip: float = 0.0
    lose_parameter_sets: float = 0.0
    stamp_back: float = 0.0

    @staticmethod
    def from_config(config: SimConfig) -> LinkFaults:
        """The faults that the settings ask for."""
        return LinkFaults(
            loss=config.loss,
            corrupt=config.corrupt,
            jitter_s=config.jitter_s,
            disconnect_every_s=config.disconnect_every_s,
            fps=config.fps,
            seed=config.seed,
            message_loss=config.message_loss,
            burst_loss=config.burst_loss,
            burst_frames=config.burst_frames,
            duplicate=config.duplicate,
            reorder=config.reorder,
            truncate=config.truncate,
            bit_flip=config.bit_flip,
            lose_parameter_sets=config.lose_parameter_sets,
            stamp_back=config.stamp_back,
        )

    def of_frame(self, number: int) -> PictureFaults:
        """The faults planned for a frame; the same seed and number always give the same."""
        single = super().of_frame(number)
        rng = np.random.default_rng([self.seed, 7, number])
        chances = (self.duplicate, self.reorder, self.truncate, self.bit_flip, self.stamp_back)
        duplicated, reordered, truncated, flipped, back = rng.random(5) < chances
        sets_lost, back_s = rng.random() < self.lose_parameter_sets, rng.uniform(0.5, _MOST_BACK_S)
        messages_lost = rng.random(_PACKETS) < self.message_loss
        return PictureFaults(
            lost=bool(single.lost or messages_lost[2] or self._in_burst(number)),
            corrupted=single.corrupted,
            disconnect=single.disconnect,
            delay_s=single.delay_s,
            duplicated=bool(duplicated),
            reordered=bool(reordered),
            truncated=bool(truncated),
            flipped=bool(flipped),
            sets_lost=(bool(sets_lost or messages_lost[0]), bool(sets_lost or messages_lost[1])),
            back_s=float(back_s) if back else 0.0,
        )

    def cut(self, message: bytes, number: int, header_bytes: int) -> bytes:
        """`message` without its end; its header stays."""
        rng = np.random.default_rng([self.seed, 8, number])
        return message[: int(rng.integers(header_bytes, len(message)))]

    def flip(self, message: bytes, number: int, header_bytes: int) -> bytes:
        """`message` with one to three bits changed behind its header."""
        rng = np.random.default_rng([self.seed, 9, number])
        content = bytearray(message)
        for _ in range(int(rng.integers(1, 4))):
            content[int(rng.integers(header_bytes, len(content)))] ^= 1 << int(rng.integers(8))
        return bytes(content)

    def _in_burst(self, number: int) -> bool:
        if not self.burst_loss:
            return False
        return any(
            _burst_draw(self.seed, first) < self.burst_loss
            for first in range(number, max(-1, number - self.burst_frames), -1)
        )


@lru_cache(maxsize=4096)  # more than a burst is long: of each frame it is drawn once
def _burst_draw(seed: int, number: int) -> float:
    return float(np.random.default_rng([seed, 10, number]).random())
