# SPDX-License-Identifier: Apache-2.0
"""Kills one process of a run after another, and sees what that does to it and to the others."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from kills_run import Run, kill
from kills_witness import Witness

START_S, BACK_S, WHOLE_S = 240.0, 60.0, 15.0
"""So long the run may take to be in full work, a stage to come back, and it to have its map."""
APART_S = 12.0
"""The least time between two kills: processes in reserve are made anew ten seconds after a death,
and the sooner a stage has its map again, the sooner the next would die."""
AFTERWARDS_S = 1.0
"""The return of a stage may hold others up; so long after it that still counts."""
DISTURBED_ANYWAY = {"ingest": ("slam3r output",), "slam3r": (), "worker": ("slam3r output",)}
"""What cannot go on without a stage, beside what only comes with keyframes."""
_STEADY = ("ingest output", "slam3r output")
_POLL_S = 0.05


@dataclass
class Kill:
    """What one kill did; `whole_s` is how long it took until `kept_percent` of what the stage, or
    the map, had before was there again and no more came."""

    stage: str
    back_s: float = math.nan
    whole_s: float = math.nan
    stalls_s: dict[str, float] = field(default_factory=dict)
    heard_late_s: float = 0.0
    before: int = 0
    kept_percent: float = math.nan
    lost_s: float = math.nan


class Campaign:
    """Random kills in a run that a witness watches; `seed` fixes their order."""

    def __init__(self, run: Run, witness: Witness, *, seed: int, pause_s: float) -> None:
        self._run, self._witness = run, witness
        self._random = random.Random(seed)
        self._pause_s = pause_s

    def wait_for_work(self, stages: list[str]) -> None:
        """Until every stage has told of itself and poses and a surface have come."""
        deadline_s = time.monotonic() + START_S
        wanted = {*(f"{stage} sign" for stage in stages), "slam3r output", "mesher output"}
        while late := sorted(wanted - set(self._witness.kinds())):
            if not self._run.alive or time.monotonic() > deadline_s:
                raise RuntimeError(f"no {', '.join(late)}; the run's words:\n{self._run.words}")
            time.sleep(_POLL_S)

    def order(self, stages: list[str], rounds: int) -> list[str]:
        """Each stage once a round; the same one never within half a round, so that the
        supervisor's growing patience with one that dies again and again is not measured."""
        found: list[str] = []
        half = len(stages) // 2
        for _ in range(rounds):
            following = self._random.sample(stages, len(stages))
            while half and set(found[-half:]) & set(following[:half]):
                following = self._random.sample(stages, len(stages))
            found += following
        return found

    def strike(self, stage: str) -> Kill:
        """Kill the stage's process and follow its return; one that never came back from the kill
        before is not there to be killed."""
        told, pid = Kill(stage), self._run.stages().get(stage)
        if pid is None:
            time.sleep(APART_S)
            return told
        compare = self._comparison(stage)
        at_s = kill(pid)
        self._forget(stage)
        told.back_s = self._wait_for_return(stage, pid, at_s)
        if not math.isnan(told.back_s):
            self._follow(told, compare, at_s)
        time.sleep(max(self._pause_s, at_s + APART_S - time.monotonic()))
        back_s = BACK_S if math.isnan(told.back_s) else told.back_s
        end_s = at_s + back_s + AFTERWARDS_S
        told.stalls_s = self.stalls_s(at_s, end_s, but=stage)
        told.heard_late_s = self._witness.heard_late_s(at_s, end_s)
        return told

    def stalls_s(self, from_s: float, to_s: float, *, but: str = "") -> dict[str, float]:
        """The longest silence of pictures, of poses, and of any stage's signs of life.

        Left out is what stage `but` says, and what needs it.
        """
        left_out = DISTURBED_ANYWAY.get(but, ())
        kinds = [
            kind
            for kind in self._witness.kinds()
            if (kind in _STEADY or kind.endswith(" sign"))
            and kind.partition(" ")[0] != but
            and kind not in left_out
        ]
        return {kind: self._witness.longest_gap_s(kind, from_s, to_s) for kind in kinds}

    def _follow(self, told: Kill, compare: Callable[[Kill, float], None], at_s: float) -> None:
        """Compare until all that was there before is there again, or for so long."""
        deadline_s, most = time.monotonic() + WHOLE_S, -1.0
        while time.monotonic() < deadline_s and most < 100.0:
            compare(told, at_s)
            if math.isnan(told.kept_percent):
                return
            if told.kept_percent > most:
                most, told.whole_s = told.kept_percent, time.monotonic() - at_s
            time.sleep(_POLL_S)

    def _forget(self, stage: str) -> None:
        if stage == "mesher":
            self._witness.forget_blocks()
        elif stage == "segmenter":
            self._witness.forget_objects()
        elif stage in ("slam3r", "worker"):
            self._witness.forget_keyframes()

    def _wait_for_return(self, stage: str, pid: int, at_s: float) -> float:
        """How long until another process of the stage told of itself [s]."""
        while time.monotonic() < at_s + BACK_S:
            if not self._run.alive:
                raise RuntimeError(f"the run ended; its words:\n{self._run.words[-3000:]}")
            if stage == "worker":
                back = self._witness.first_after("slam3r output", at_s + _POLL_S)
                if back is not None and self._run.stages().get(stage, pid) != pid:
                    return back - at_s
            elif self._witness.pid(stage) not in (0, pid):
                return self._witness.first_told_s(stage) - at_s
            time.sleep(_POLL_S)
        return math.nan

    def _comparison(self, stage: str) -> Callable[[Kill, float], None]:
        """What is to be compared with how it is now."""
        witness = self._witness
        keyframes = witness.keyframes()
        sets: dict[str, Callable[[], set[object]]] = {
            "mesher": lambda: set(witness.blocks()),
            "segmenter": lambda: set(witness.objects()),
        }
        streams = ("ingest",)
        counts = {"viewer": ("viewer", "blocks"), "splats": ("splats", "chunks")}

        def compare(told: Kill, at_s: float) -> None:
            if stage in streams:
                flows = witness.first_after(f"{stage} output", at_s + told.back_s)
                told.before, kept = 1, int(flows is not None)
            elif stage in sets:
                told.before = len(before)
                kept = len(before & sets[stage]())
            elif stage in counts:
                told.before, kept = count, min(count, witness.fact(*counts[stage]))
            elif stage in ("slam3r", "worker"):
                there = {stamp_ns for _, stamp_ns in witness.keyframes().values()}
                lost = _lost(keyframes, there | witness.replaced())
                told.before, kept = len(keyframes), len(keyframes) - len(lost)
                told.lost_s = at_s - min(lost, default=at_s)
            else:
                return
            told.kept_percent = 100.0 * kept / told.before if told.before else math.nan

        before = sets[stage]() if stage in sets else set()
        count = witness.fact(*counts[stage]) if stage in counts else 0
        return compare


def _lost(before: dict[int, tuple[float, int]], there: set[int]) -> list[float]:
    """When the keyframes came that are not `there` any more, told by their capture time."""
    return [came_s for came_s, stamp_ns in before.values() if stamp_ns not in there]
