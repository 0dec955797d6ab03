# SPDX-License-Identifier: Apache-2.0
"""What a training is asked for."""

from __future__ import annotations

from dataclasses import dataclass

from worldsystem_slam3r.model.sizes import NetworkSizes

SIZES = {
    "smallest": NetworkSizes(
        encoder_dim=128,
        encoder_depth=3,
        encoder_heads=4,
        decoder_dim=128,
        decoder_depth=3,
        decoder_heads=4,
    ),
    "tiny": NetworkSizes(
        encoder_dim=176,
        encoder_depth=5,
        encoder_heads=4,
        decoder_dim=176,
        decoder_depth=3,
        decoder_heads=4,
    ),
}
"""`smallest` for a processor (5 million parameters in both), `tiny` for a GPU (9 million)."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How long, on what, and with which steps.

    `minutes` are processor time, or time of the clock on a GPU; filming and judging come on top.
    Rooms are kept in the folder `kept`, if given. With `resume`, networks and counts of an earlier
    run are taken up; a part whose share is 0 is left as it is.
    """

    minutes: float = 20.0
    sizes: str = "smallest"
    rooms: int = 240
    frames: int = 60
    size_px: int = 112
    batch: int = 8
    views: int = 5
    rate: float = 2e-3
    seed: int = 0
    device: str = "cpu"
    threads: int = 1
    own_view_share: float = 0.08
    i2p_share: float = 0.47
    l2w_share: float = 0.38
    retrieval_share: float = 0.07
    kept: str = ""
    resume: str = ""

    @property
    def world_batch(self) -> int:
        """Windows of Local-to-World in a step: its views look at more others, and cost more."""
        return max(1, self.batch // 2)

    @property
    def minutes_of(self) -> dict[str, float]:
        """The minutes of each part, in their order."""
        shares = {
            "own_view": self.own_view_share,
            "i2p": self.i2p_share,
            "l2w": self.l2w_share,
            "retrieval": self.retrieval_share,
        }
        return {part: round(self.minutes * share, 3) for part, share in shares.items()}

    @property
    def recipe(self) -> dict[str, object]:
        """What the result depends on beside the minutes."""
        apart = {"minutes", "kept", "resume"}
        return {
            name: value
            for name, value in self.__dict__.items()
            if name not in apart and not name.endswith("_share")
        }
