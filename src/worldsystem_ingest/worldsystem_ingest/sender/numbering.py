# SPDX-License-Identifier: Apache-2.0
"""From the sender's frame numbers, which begin again at a restart, to ids that only grow."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

_REMEMBERED = 512
_LARGEST_GAP = 3000  # 100 s at 30 fps; a wider jump is another numbering, not a loss,
_LARGEST_AFTER_SILENCE = 20_000  # unless it was silent for as long
_GAPS_PER_S = 300.0  # more pictures than any sender makes
_LATE_IN_A_ROW = 5
_LARGEST_FIRST = 2**48


@dataclass(frozen=True)
class Numbered:
    """The id of a picture, the ids before it that never came, and whether the sender restarted."""

    id: int
    lost: range
    restarted: bool = False


class FrameNumbers:
    """Gives each picture of one stream its id; late and duplicate ones are counted and get none.

    A number that goes back is a restart when its capture time went on; when the sender's clock
    cannot tell (it stands still or began again) and the stream begins anew at number 0 or 1; when a
    connection begins with a key frame of a number that was not seen; and after five late pictures
    in a row. Ids are lost at 300 a second at most, and 3000 at once, or 20 000 after a silence of
    a minute: jumps beyond that are restarts, so that no sender can make the ledger grow at will.
    """

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        self._now_s = now_s
        self._allowance = float(_LARGEST_GAP)
        self._allowed_at_s = now_s()
        self._late_in_a_row = 0
        self._offset = 0
        self._expected: int | None = None
        self._newest_ns = -1
        self._clock_stands = 0
        self._seen: OrderedDict[int, int] = OrderedDict()
        self._anew = False
        self._restart = False
        self.late = 0
        self.duplicates = 0
        self.restarts = 0
        self.lost = 0

    def connected(self) -> None:
        """The next picture is the first of a new connection."""
        self._anew = True

    def restart(self) -> None:
        """The sender said that it begins again: the next picture is the first of a new session."""
        self._restart = self._expected is not None

    def take(self, number: int, sender_ns: int, is_key: bool) -> Numbered | None:
        """Number one picture, or None when it is late or was there before."""
        if self._expected is None:
            self._offset = 0 if number < _LARGEST_FIRST else -number
            return self._accept(number, sender_ns, range(0))
        if self._begins_again(number, sender_ns, is_key):
            return self._accept_restart(number, sender_ns)
        if number < self._expected:
            if self._seen.get(number) == sender_ns:
                self.duplicates += 1
            else:
                self.late += 1
                self._late_in_a_row += 1
            return None
        lost = range(self._expected + self._offset, number + self._offset)
        self.lost += len(lost)
        return self._accept(number, sender_ns, lost)

    def _begins_again(self, number: int, sender_ns: int, is_key: bool) -> bool:
        assert self._expected is not None
        if self._restart:
            return True
        if number >= self._expected:
            return not self._may_lose(number - self._expected)
        is_new = number not in self._seen
        if is_new and ((self._anew and is_key) or self._late_in_a_row >= _LATE_IN_A_ROW):
            return True
        if sender_ns > self._newest_ns:
            return True
        clock_is_mute = self._anew or self._clock_stands > 3
        return is_key and number <= 1 and clock_is_mute

    def _may_lose(self, count: int) -> bool:
        """Whether `count` ids more may be lost; takes them from the allowance if so."""
        now_s = self._now_s()
        earned = (now_s - self._allowed_at_s) * _GAPS_PER_S
        self._allowance = min(float(_LARGEST_AFTER_SILENCE), self._allowance + earned)
        self._allowed_at_s = now_s
        if count > self._allowance:
            return False
        self._allowance -= count
        return True

    def _accept_restart(self, number: int, sender_ns: int) -> Numbered:
        assert self._expected is not None
        self._offset += self._expected - number
        self._seen.clear()
        self._newest_ns = -1
        self.restarts += 1
        numbered = self._accept(number, sender_ns, range(0))
        return Numbered(numbered.id, range(0), restarted=True)

    def _accept(self, number: int, sender_ns: int, lost: range) -> Numbered:
        self._clock_stands = self._clock_stands + 1 if sender_ns == self._newest_ns else 0
        self._newest_ns = max(self._newest_ns, sender_ns)
        self._expected = number + 1
        self._anew = self._restart = False
        self._late_in_a_row = 0
        self._seen[number] = sender_ns
        if len(self._seen) > _REMEMBERED:
            self._seen.popitem(last=False)
        return Numbered(number + self._offset, lost)
