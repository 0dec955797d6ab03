# SPDX-License-Identifier: Apache-2.0
"""When a stage that runs as a process of its own is begun anew. No ROS, no processes: rules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

SILENT_S = 20.0
"""A stage that was heard of once and then not for so long hangs. One whose process ended is seen at
once; a living one tells of itself between two pieces of work, which may take long under load."""
STARTING_S = 60.0
"""So long a stage may take until it is first heard of: it may compile kernels or load weights."""
SECOND_DELAY_S, LONGEST_DELAY_S = 0.25, 8.0
"""The first restart comes at once, the second after so long."""
PERSON_DELAY_S = 60.0
"""One that a person must change something for, as a port that is taken, is tried so often."""
WELL_S = 30.0
"""A stage that ran for so long is well again: its next restart comes at once."""


class Action(Enum):
    """What to do about a stage now."""

    NOTHING = "nothing"
    KILL = "kill"
    START = "start"


@dataclass
class StageWatch:
    """One stage's life, told by whoever watches it; times are of a monotonic clock [s].

    It asks for a new start after a delay that doubles with each one that did not last, and for
    a kill when a living process has not been heard of for `SILENT_S`.
    """

    started_s: float
    heard_s: float | None = None
    ended_s: float | None = None
    restarts: int = 0
    waits_for_a_person: bool = False
    _delay_s: float = 0.0

    @property
    def state(self) -> str:
        """In one word, for people."""
        if self.ended_s is not None:
            return "restarting"
        return "starting" if self.heard_s is None else "running"

    def heard(self, now_s: float) -> None:
        """The stage gave a sign of life; one older than what was heard or forgiven says nothing."""
        if self.ended_s is None:
            self.heard_s = now_s if self.heard_s is None else max(self.heard_s, now_s)

    def forgive(self, asleep_s: float) -> None:
        """Whoever watches could not hear it for so long [s]; nothing when that is not above 0."""
        self.started_s += max(asleep_s, 0.0)
        if self.heard_s is not None:
            self.heard_s += max(asleep_s, 0.0)

    def ended(self, now_s: float, *, by_settings: bool = False) -> None:
        """Its process is gone, and nobody had asked it to go; `by_settings`: it cannot run so."""
        if self.ended_s is None:
            self.ended_s, self.waits_for_a_person = now_s, by_settings
            if by_settings:
                self._delay_s = PERSON_DELAY_S
            elif now_s - self.started_s >= WELL_S:
                self._delay_s = 0.0

    def started(self, now_s: float) -> None:
        """It was begun anew."""
        self.started_s, self.heard_s, self.ended_s = now_s, None, None
        self.restarts += 1
        self._delay_s = min(max(2.0 * self._delay_s, SECOND_DELAY_S), LONGEST_DELAY_S)

    def could_not_start(self, now_s: float) -> None:
        """It was to be begun anew, and could not: the next attempt comes later."""
        self.ended_s = now_s
        self._delay_s = min(max(2.0 * self._delay_s, SECOND_DELAY_S), LONGEST_DELAY_S)

    def killed(self, now_s: float) -> None:
        """It was told to die: while its end is not seen, that is not asked for again at once."""
        if self.heard_s is None:
            self.started_s = now_s + SILENT_S - STARTING_S
        else:
            self.heard_s = now_s

    def due(self, now_s: float) -> Action:
        """What to do now."""
        if self.ended_s is not None:
            return Action.START if now_s - self.ended_s >= self._delay_s else Action.NOTHING
        if self.heard_s is None:
            silent = now_s - self.started_s > STARTING_S
        else:
            silent = now_s - self.heard_s > SILENT_S
        return Action.KILL if silent else Action.NOTHING


def chosen(stage: str, facts: Mapping[str, str]) -> dict[str, object]:
    """Parameters with which a stage begun anew goes on as before, from the `facts` it told last.

    Mesher and splats take their voxel from the first keyframe that they see, and a later life would
    see another one first: the whole surface would come back in other blocks. Once the map is empty
    they take it anew, as ever. What a person asked of the segmenter and the recorder meanwhile is
    not to be asked again.
    """
    if stage in ("mesher", "splats") and "begun_voxel" in facts:  # 0 once the map is empty
        return {"begun_voxel": float(facts["begun_voxel"])}
    if stage == "segmenter" and "prompt" in facts:
        return {"prompt": facts["prompt"]}
    if stage == "recorder" and "recording" in facts:
        waits = facts.get("waiting") == "True"
        return {"record_at_start": waits or facts["recording"] != "no"}
    return {}
