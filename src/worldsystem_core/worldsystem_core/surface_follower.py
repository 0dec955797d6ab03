# SPDX-License-Identifier: Apache-2.0
"""A client of the surface's deltas that may come late or miss some. No ROS: what to show when."""

from __future__ import annotations

from collections import deque
from dataclasses import replace

from worldsystem_core.surface import MeshDelta

HELD = 100


class SurfaceFollower:
    """Says which deltas to show, in order, and what to ask the mesher for when some were missed.

    While something is missing, deltas are held (the newest `HELD`): the answer may be older than
    they are and would put old blocks over new ones.
    """

    def __init__(self) -> None:
        self._sequence = 0
        self._held: deque[MeshDelta] = deque(maxlen=HELD)
        self._missing = False
        self._newest_sequence, self._newest_ns = 0, 0

    @property
    def newer_than(self) -> int | None:
        """Everything after this sequence has to be asked for; None while nothing is missing."""
        return self._sequence if self._missing else None

    def take(self, delta: MeshDelta) -> list[MeshDelta]:
        """What can be shown now that `delta` came."""
        began_anew = delta.sequence <= self._newest_sequence and delta.stamp_ns > self._newest_ns
        self._note(delta)
        if delta.base_sequence == 0:  # a mesher that begins anew: its numbers begin again
            self._missing = False
            self._held.clear()
        elif began_anew:  # and its first delta was missed
            self._sequence, self._missing = 0, True
            self._held = deque([delta], maxlen=HELD)
            return []
        elif self._missing or delta.base_sequence > self._sequence:
            self._missing = True
            self._held.append(delta)
            return []
        elif delta.sequence < self._sequence:  # it was in an answer that overtook it
            return []
        self._sequence = delta.sequence
        return [delta]

    def catch_up(self, answer: MeshDelta) -> list[MeshDelta]:
        """What can be shown now that everything up to `answer.sequence` was told."""
        if not self._missing:
            return []
        held, self._missing = list(self._held), False
        self._held.clear()
        self._note(answer)
        self._sequence = answer.sequence
        shown = [answer]
        for delta in held:
            if delta.sequence > self._sequence:
                shown += self.take(delta)
        return shown

    def _note(self, delta: MeshDelta) -> None:
        if delta.stamp_ns >= self._newest_ns:
            self._newest_sequence, self._newest_ns = delta.sequence, delta.stamp_ns

    def give_up(self) -> list[MeshDelta]:
        """What can be shown when nobody answers any more: all that is held, as if in order.

        Blocks that changed only in what was missed stay as they were.
        """
        held, self._missing = list(self._held), False
        self._held.clear()
        shown = []
        for delta in held:
            shown.append(replace(delta, base_sequence=min(delta.base_sequence, self._sequence)))
            self._sequence = delta.sequence
        return shown
