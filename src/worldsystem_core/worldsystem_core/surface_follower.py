# SPDX-License-Identifier: Apache-2.0
"""A client of the surface's deltas that may come late or miss some. No ROS: what to show when."""

from __future__ import annotations

from collections import deque
from dataclasses import replace

from worldsystem_core.surface import BlockIndex, MeshDelta, is_same_size

HELD = 100
RESTART_NS = 10**9
"""The least time in which a stage begins anew: after a longer silence another mesher may speak."""
REGROWN_NS = 60 * 10**9
"""A mesher that is begun anew has told by then what it goes on with, as a rule."""


class SurfaceFollower:
    """Says which deltas to show, in order, and what to ask the mesher for when some were missed.

    While something is missing, deltas are held (the newest `HELD`): the answer may be older than
    they are and would put old blocks over new ones. Where the mesher may be another one, all of its
    surface is asked for, and blocks that this does not hold are removed. One that begins anew is
    given `REGROWN_NS` to tell again what there was, unless its blocks are of another size.
    """

    def __init__(self) -> None:
        self._sequence = 0
        self._held: deque[MeshDelta] = deque(maxlen=HELD)
        self._missing = True  # there may have been a surface before
        self._newest_sequence, self._newest_ns = 0, 0
        self._begun_ns = 0
        self._shown: set[BlockIndex] = set()
        self._of_before: set[BlockIndex] = set()
        self._anew_ns, self._block_size = 0, 0.0

    @property
    def newer_than(self) -> int | None:
        """Everything after this sequence has to be asked for; None while nothing is missing."""
        return self._sequence if self._missing else None

    def take(self, delta: MeshDelta) -> list[MeshDelta]:
        """What can be shown now that `delta` came."""
        may_be_of_another = self._may_be_of_another(delta)
        self._note(delta)
        if delta.base_sequence == 0:  # a mesher that begins anew: its numbers begin again
            self._missing = False
            self._held.clear()
            self._of_before, self._anew_ns = set(self._shown), delta.stamp_ns
        elif may_be_of_another:  # and its first delta was missed
            self._sequence, self._missing, self._begun_ns = 0, True, delta.stamp_ns
            self._held = deque([delta], maxlen=HELD)
            return []
        elif self._missing or delta.base_sequence > self._sequence:
            self._missing = True
            self._held.append(delta)
            return []
        elif delta.sequence < self._sequence:  # it was in an answer that overtook it
            return []
        self._sequence = delta.sequence
        return [self._showing(delta)]

    def catch_up(self, answer: MeshDelta) -> list[MeshDelta]:
        """What can be shown now that everything up to `answer.sequence` was told.

        Nothing of an answer by the mesher before; nothing yet where another one may have answered:
        what it told up to `newer_than` is asked for, too.
        """
        if not self._missing or answer.stamp_ns < self._begun_ns:
            return []
        was_silent = self._is_after_silence(answer)
        self._note(answer)
        if answer.base_sequence > 0 and was_silent:
            self._sequence = 0
            self._held.clear()
            return []
        held, self._missing = list(self._held), False
        self._held.clear()
        self._sequence = answer.sequence
        shown = [self._showing(self._instead_of_all(answer))]
        for delta in held:
            if delta.sequence > self._sequence and delta.stamp_ns >= answer.stamp_ns:
                shown += self.take(delta)
        return shown

    def give_up(self) -> list[MeshDelta]:
        """What can be shown when nobody answers any more: all that is held, as if in order.

        Blocks that changed only in what was missed stay as they were.
        """
        held, self._missing = list(self._held), False
        self._held.clear()
        shown = []
        for delta in held:
            base_sequence = min(delta.base_sequence, self._sequence)
            shown.append(self._showing(replace(delta, base_sequence=base_sequence)))
            self._sequence = delta.sequence
        return shown

    def _may_be_of_another(self, delta: MeshDelta) -> bool:
        """Whether numbers that go back, or a gap after a silence, say so."""
        if not self._newest_ns:
            return False  # nobody was heard yet
        if delta.sequence <= self._newest_sequence:
            return delta.stamp_ns > self._newest_ns
        return delta.base_sequence > self._newest_sequence and self._is_after_silence(delta)

    def _is_after_silence(self, delta: MeshDelta) -> bool:
        return delta.stamp_ns - self._newest_ns > RESTART_NS

    def _note(self, delta: MeshDelta) -> None:
        if delta.stamp_ns >= self._newest_ns:
            self._newest_sequence, self._newest_ns = delta.sequence, delta.stamp_ns

    def _instead_of_all(self, answer: MeshDelta) -> MeshDelta:
        """`answer`; where it is the whole surface, what else was shown is removed by it."""
        if answer.base_sequence > 0:
            return answer
        self._of_before = set()
        gone = self._shown.difference(block.index for block in answer.blocks)
        return replace(answer, removed=(*answer.removed, *gone.difference(answer.removed)))

    def _showing(self, delta: MeshDelta) -> MeshDelta:
        """`delta`, with what is to go of a mesher before."""
        told = {block.index for block in delta.blocks}
        self._of_before -= told
        self._of_before.difference_update(delta.removed)
        another_size = not is_same_size(delta.block_size, self._block_size)
        if self._of_before and (another_size or delta.stamp_ns - self._anew_ns > REGROWN_NS):
            delta = replace(delta, removed=(*delta.removed, *self._of_before))
            self._of_before = set()
        self._block_size = delta.block_size
        self._shown.difference_update(delta.removed)
        self._shown |= told
        return delta
