# SPDX-License-Identifier: Apache-2.0
"""Watches a run go by and keeps what its status line and its report are made from. No ROS."""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path

import numpy as np

from worldsystem.accounts import StageAccount
from worldsystem.evaluation.truth import GroundTruth
from worldsystem.provenance import commit, versions
from worldsystem.report.record import GLASS_TO_MAP, RunRecord, RunSample
from worldsystem_core.latency import percentile_s
from worldsystem_core.ledger import LedgerState, StageReport
from worldsystem_core.reconstruction import ScaleState
from worldsystem_core.surface import Mesh, MeshAssembly, MeshDelta
from worldsystem_core.thinning import rows_that_stay
from worldsystem_core.trajectory import StampedPoses

FRAME_STAGES = ("ingest", "slam3r")
KEYFRAME_STAGES = ("mesher", "segmenter")
_LATENCIES = {
    "ingest": "glass_to_picture",
    "slam3r": "glass_to_pose",
    "mesher": GLASS_TO_MAP,
    "segmenter": "glass_to_objects",
}
_BITS = 1024
_MAX_SAMPLES = 4_000
_RATE_OVER_S = 5.0


@dataclass(frozen=True)
class Live:
    """The run at this moment, as the status line shows it."""

    t_s: float
    fps: float
    frames: int
    keyframes: int
    triangles: int
    dropped: dict[str, int]
    glass_to_map_p50_ms: float
    glass_to_map_p95_ms: float


class Numbers:
    """Which numbers there were, a bit each: keyframes come by the thousand, and one by one.

    `told` says how often any came. Safe from any thread.
    """

    def __init__(self) -> None:
        self.told = 0
        self._lock = threading.Lock()
        self._bits: dict[int, int] = {}

    def __len__(self) -> int:
        with self._lock:
            return sum(bits.bit_count() for bits in self._bits.values())

    def add(self, number: int) -> None:
        """There was `number`, perhaps again."""
        at, bit = divmod(number, _BITS)
        with self._lock:
            self.told += 1
            self._bits[at] = self._bits.get(at, 0) | 1 << bit


@dataclass
class Observer:
    """Takes stage reports, mesh deltas and the path; call from one thread, `keyframe` from any.

    Within a process every frame is delivered, so that one that is missing is a fault in the
    accounts; between processes (`delivered_by_reference` false) it was not delivered.
    """

    started_ns: int = 0
    ended_ns: int = 0
    surface: MeshAssembly = field(default_factory=MeshAssembly)
    poses: StampedPoses = field(
        default_factory=lambda: StampedPoses(np.zeros(0, np.int64), np.zeros((0, 4, 4)))
    )
    scale: ScaleState = ScaleState.SCENE
    triangles: int = 0
    samples: list[RunSample] = field(default_factory=list)
    delivered_by_reference: bool = True
    tracked: int = 0  # frames that the path has, or had before it was thinned out or begun anew
    _accounts: dict[str, StageAccount] = field(default_factory=dict)
    _poses_before: StampedPoses | None = None
    _path_length: int = 0
    _tracked_to_ns: int = -1
    _used_at: deque[tuple[float, int]] = field(default_factory=deque)
    _mapped_before: list[int] = field(default_factory=list)
    _newest_s: float = float("nan")
    _keyframe_ids: Numbers = field(default_factory=Numbers)
    _died: set[str] = field(default_factory=set)

    def stage(self, report: StageReport) -> None:
        """A stage's newest account.

        The run begins when a stage first took a frame and ends when the last one was tracked.
        """
        if not self.started_ns and report.ledger.taken:
            self.started_ns = report.stamp_ns
        tracked = self._used("slam3r")
        self._accounts.setdefault(report.ledger.stage, StageAccount()).add(report)
        if self._used("slam3r") > tracked:
            self.ended_ns = report.stamp_ns

    def died(self, stage: str) -> None:
        """A stage's process ended of itself: nobody tells what it did since its last account."""
        self._died.add(stage)

    def began_anew(self, stage: str) -> None:
        """A stage's process was started again: what it tells from now on comes after the rest."""
        for name, account in self._accounts.items():
            if name.partition("/")[0] == stage:
                account.begin_anew()
        if stage == "slam3r":
            self._poses_before = self.poses

    def keyframe(self, id: int) -> None:
        """A keyframe was told, perhaps again: all are, for a stage that was begun anew."""
        self._keyframe_ids.add(id)

    @property
    def keyframes_told(self) -> int:
        """How often one was told."""
        return self._keyframe_ids.told

    @property
    def keyframes(self) -> int:
        """How many there were, each counted once."""
        return len(self._keyframe_ids)

    def mesh(self, delta: MeshDelta) -> None:
        """The surface changed; deltas come in order and none is missed (`SurfaceFollower`)."""
        self.surface.apply(delta)
        self.triangles = delta.total_faces
        self.scale = delta.scale

    def path(self, poses: StampedPoses) -> None:
        """The camera's path as it stands now; an empty one says that its map was forgotten."""
        self._count_tracked(poses.stamps_ns)
        if not len(poses):
            self._poses_before = None
        before = self._poses_before
        if before is None or before.scale is not poses.scale:  # it has no place in this frame
            self.poses = poses
            return
        older = before.stamps_ns < poses.stamps_ns[0]
        self.poses = StampedPoses(
            np.concatenate([before.stamps_ns[older], poses.stamps_ns]),
            np.concatenate([before.world_from_cam[older], poses.world_from_cam]),
            poses.scale,
        )

    def _count_tracked(self, stamps_ns: np.ndarray) -> None:
        """A long path is thinned out and a reset begins another: what came counts, not what is
        left, and what is told again does not. Late poses make a path longer without being newer."""
        before, self._path_length = self._path_length, len(stamps_ns)
        longer = len(stamps_ns) - before if before else 0
        self.tracked += max(longer, int(np.count_nonzero(stamps_ns > self._tracked_to_ns)))
        self._tracked_to_ns = max((self._tracked_to_ns, *stamps_ns[-1:].tolist()))

    def tick(self) -> Live:
        """The state now; call about once a second, each call is one sample of the report."""
        t_s = (time.time_ns() - self.started_ns) / 1e9 if self.started_ns else 0.0
        used = self._used("slam3r")
        fps = self._rate(t_s, used) if self.started_ns else 0.0
        counts = self._latency(GLASS_TO_MAP)
        live = Live(
            t_s=t_s,
            fps=fps,
            frames=used,
            keyframes=self.keyframes,
            triangles=self.triangles,
            dropped=self.dropped(),
            glass_to_map_p50_ms=1e3 * percentile_s(counts, 50.0),
            glass_to_map_p95_ms=1e3 * percentile_s(counts, 95.0),
        )
        if self.started_ns:
            self._sample(live)
        return live

    def _rate(self, t_s: float, used: int) -> float:
        """Frames a second over the last five: accounts come about once a second, and late when
        the machine is busy, so that over one second it would jump between none and many."""
        if self._used_at and t_s < self._used_at[-1][0]:  # a clock may be set back
            self._used_at.clear()
        self._used_at.append((t_s, used))
        while len(self._used_at) > 2 and t_s - self._used_at[1][0] >= _RATE_OVER_S:
            self._used_at.popleft()
        since_s, before = self._used_at[0]
        return (used - before) / (t_s - since_s) if t_s > since_s else 0.0

    def _sample(self, live: Live) -> None:
        if len(self.samples) >= _MAX_SAMPLES:
            at_ns = np.array([round(1e9 * sample.t_s) for sample in self.samples], np.int64)
            self.samples = [self.samples[row] for row in rows_that_stay(at_ns).tolist()]
        self.samples.append(
            RunSample(
                t_s=live.t_s,
                fps=live.fps,
                keyframes=live.keyframes,
                triangles=live.triangles,
                latency_s=self._newest_latency_s(),
            )
        )

    def _newest_latency_s(self) -> float:
        """The median of what reached the map since the last sample; as there, where nothing did."""
        counts, before = self._latency(GLASS_TO_MAP), self._mapped_before
        if sum(counts) < sum(before):  # a mesher begun by hand counts from nothing, untold
            before = []
        newest = [max(0, now - then) for now, then in zip_longest(counts, before, fillvalue=0)]
        if any(newest):
            self._mapped_before, self._newest_s = counts, percentile_s(newest, 50.0)
        return self._newest_s

    def dropped(self) -> dict[str, int]:
        """Frames let go so far, as `stage.reason`."""
        return {
            f"{name}.{reason}": count
            for name, account in self._accounts.items()
            for reason, count in account.ledger.dropped.items()
        }

    def ledgers(self, frames_sent: int | None = None) -> tuple[LedgerState, ...]:
        """The accounts of the stages that take frames or keyframes, in the order of the flow."""
        expected: dict[str, int | None] = {"ingest": frames_sent, **self._expected()}
        names = [n for n in (*FRAME_STAGES, *KEYFRAME_STAGES) if n in self._accounts]
        if self.delivered_by_reference:
            return tuple(self._accounts[name].ledger for name in names)
        untold = {"ingest": self._passed_on() - self._used("ingest")}
        return tuple(
            self._accounts[name].closed(expected.get(name), untold.get(name, 0)) for name in names
        )

    def violations(self) -> dict[str, int]:
        """By stage, frames taken or settled twice or never taken: its accounting is at fault."""
        return {
            name: account.violations
            for name, account in self._accounts.items()
            if account.violations
        }

    def record(
        self,
        folder: Path,
        *,
        source: str,
        backend: str,
        truth: GroundTruth | None = None,
        frames_sent: int | None = None,
        notes: tuple[str, ...] = (),
    ) -> RunRecord:
        """Everything about the run, for the report."""
        return RunRecord(
            folder=folder,
            source=source,
            backend=backend,
            started_ns=self.started_ns or time.time_ns(),
            ended_ns=self.ended_ns or time.time_ns(),
            poses=self.poses,
            tracked=self.tracked,
            mesh=welded(self.surface.mesh()),
            keyframe_count=self.keyframes,
            scale=self.scale,
            ledgers=self.ledgers(frames_sent),
            frames_sent=frames_sent,
            expected=self._expected(),
            violations=self.violations(),
            latency_counts=self._latencies(),
            samples=tuple(self.samples),
            truth=truth,
            versions=versions(),
            commit=commit(),
            notes=notes,
        )

    def _expected(self) -> dict[str, int]:
        """What later stages should have taken: what the stages before them passed on."""
        expected = {name: self.keyframes_told for name in KEYFRAME_STAGES if name in self._accounts}
        if "ingest" in self._accounts:
            expected["slam3r"] = self._passed_on()
        return expected

    def _passed_on(self) -> int:
        """Frames that ingest handed on: of those since the last account of one that died, the
        tracker tells, which took them."""
        told = self._used("ingest")
        if "ingest" not in self._died or "slam3r" not in self._accounts:
            return told
        return max(told, self._accounts["slam3r"].ledger.taken)

    def _used(self, stage: str) -> int:
        return self._accounts[stage].ledger.used if stage in self._accounts else 0

    def _latency(self, name: str) -> list[int]:
        return self._latencies().get(name, [])

    def _latencies(self) -> dict[str, list[int]]:
        return {
            label: list(self._accounts[stage].latency_counts)
            for stage, label in _LATENCIES.items()
            if stage in self._accounts and any(self._accounts[stage].latency_counts)
        }


def welded(mesh: Mesh) -> Mesh:
    """`mesh` with vertices of equal position merged: blocks repeat those on their rims."""
    if not len(mesh.faces):
        return mesh
    keys = np.ascontiguousarray(mesh.vertices).view(np.dtype((np.void, 12))).ravel()
    _, first, merged = np.unique(keys, return_index=True, return_inverse=True)
    return Mesh(
        vertices=mesh.vertices[first],
        colours=mesh.colours[first],
        faces=merged[mesh.faces].astype(np.int32),
    )
