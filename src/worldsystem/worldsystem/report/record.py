# SPDX-License-Identifier: Apache-2.0
"""Everything about one finished run that its report is made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from worldsystem.evaluation.truth import GroundTruth
from worldsystem_core.ledger import LedgerState
from worldsystem_core.reconstruction import ScaleState
from worldsystem_core.shown_url import without_secrets
from worldsystem_core.surface import Mesh
from worldsystem_core.trajectory import StampedPoses

GLASS_TO_MAP = "glass_to_map"


@dataclass(frozen=True, kw_only=True)
class RunSample:
    """The run at one moment, `t_s` after its start; latency is the newest glass-to-map [s]."""

    t_s: float
    fps: float
    keyframes: int
    triangles: int
    latency_s: float = float("nan")


@dataclass(frozen=True, kw_only=True)
class Targets:
    """What a good run reaches; the report's tiles are coloured against these."""

    ate_percent: float = 2.0
    mesh_fscore: float = 0.6
    fps: float = 10.0
    glass_to_map_p95_ms: float = 1000.0
    tracked_percent: float = 90.0
    unexplained_frames: float = 0.0


@dataclass(frozen=True, kw_only=True, eq=False)
class RunRecord:
    """One run as it ended; `poses` and `mesh` share the world frame, in metres if METRIC.

    `source` shows no password, whatever it was made with. `started_ns` is when the first frame was
    asked for, `ended_ns` when the last result was out (Unix time). `ledgers` are in the order in
    which frames flow: the first stage should have taken every frame of `frames_sent` (None: the
    sender kept no count). `expected` says the same of later stages by name, where it is known.
    `violations` counts, by stage, frames that its account has taken or settled twice, or settled
    without having taken them. `latency_counts` are `LatencyHistogram.counts()` by name;
    `glass_to_map` is the one that is judged.
    `fscore_threshold_percent` is the F-score's distance in percent of the scene's diameter.
    """

    folder: Path
    source: str
    backend: str
    started_ns: int
    ended_ns: int
    poses: StampedPoses
    mesh: Mesh
    keyframe_count: int
    scale: ScaleState = ScaleState.SCENE
    ledgers: tuple[LedgerState, ...] = ()
    tracking_stage: str = "slam3r"
    frames_sent: int | None = None
    expected: Mapping[str, int] = field(default_factory=dict)
    violations: Mapping[str, int] = field(default_factory=dict)
    latency_counts: Mapping[str, list[int]] = field(default_factory=dict)
    samples: tuple[RunSample, ...] = ()
    truth: GroundTruth | None = None
    targets: Targets = field(default_factory=Targets)
    fscore_threshold_percent: float = 1.0
    versions: Mapping[str, str] = field(default_factory=dict)
    commit: str = "unknown"
    tracked: int | None = None  # frames; of a long path, or after a reset, more than `poses` has
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "source", without_secrets(self.source))

    @property
    def duration_s(self) -> float:
        """Wall time of the run."""
        return max(0.0, (self.ended_ns - self.started_ns) * 1e-9)

    @property
    def frame_count(self) -> int:
        """Frames that should have been tracked: sent, else taken by the first stage, else posed.

        Those that a `frame_step` leaves out are none of them, nor those of further streams.
        """
        skipped = sum(ledger.dropped.get("skipped", 0) for ledger in self._until_tracking())
        if self.frames_sent is not None:
            return self.frames_sent - skipped
        return _own(self.ledgers[0]) - skipped if self.ledgers else len(self.poses)

    def _until_tracking(self) -> tuple[LedgerState, ...]:
        stages = [ledger.stage for ledger in self.ledgers]
        end = stages.index(self.tracking_stage) + 1 if self.tracking_stage in stages else 0
        return self.ledgers[:end]

    @property
    def fps(self) -> float:
        """Frames worked into the map per second of wall time; NaN for a run without duration."""
        used = next((s.used for s in self.ledgers if s.stage == self.tracking_stage), None)
        frames = len(self.poses) if used is None else used
        return frames / self.duration_s if self.duration_s > 0 else float("nan")

    @property
    def length_unit(self) -> str:
        """Unit of the report's lengths: `m` in the truth's frame or a metric map, else `units`."""
        metric = self.truth is not None or self.scale is ScaleState.METRIC
        return "m" if metric else "units"

    def missing_at(self, ledger: LedgerState) -> int | None:
        """Frames that should have reached the stage less those it took; None: not known."""
        expected = self.expected.get(ledger.stage)
        if expected is None and self.ledgers and ledger is self.ledgers[0]:
            expected = self.frames_sent
        return None if expected is None else expected - _own(ledger)

    def adds_up(self, ledger: LedgerState) -> bool:
        """Whether the stage took what it should have, and settled each frame once."""
        at_fault = ledger.in_flight < 0 or self.violations.get(ledger.stage, 0)
        return not at_fault and not self.missing_at(ledger)

    @property
    def unexplained_frames(self) -> int | None:
        """Frames that no stage can account for; None when there is no ledger at all.

        Frames that vanished before a stage or came from nowhere, and those that a stage's account
        is at fault with.
        """
        if not self.ledgers:
            return None
        vanished = sum(abs(self.missing_at(ledger) or 0) for ledger in self.ledgers)
        settled_untaken = sum(max(0, -ledger.in_flight) for ledger in self.ledgers)
        return vanished + settled_untaken + sum(self.violations.values())


def _own(ledger: LedgerState) -> int:
    """What the stage took of the stream that is worked through; `--no-ros` lets others go."""
    return ledger.taken - ledger.dropped.get("other_stream", 0)
