# SPDX-License-Identifier: Apache-2.0
"""Chunks of the surface once more: a client whose line was full may have missed the first sending.

Foxglove's SDK lets go of a slow client's oldest messages and tells nobody.
"""

from __future__ import annotations

from collections import OrderedDict

from worldsystem_viewer.chunks import ChunkIndex


class SecondSending:
    """Which chunk goes again: each once, when it was not sent for `after_s`, one every `period_s`.

    What was sent longest ago goes first. For one thread.
    """

    def __init__(self, after_s: float, period_s: float) -> None:
        self._after_s = after_s
        self._period_s = period_s
        self._sent_s: OrderedDict[ChunkIndex, float] = OrderedDict()
        self._due_s = 0.0

    def sent(self, chunk: ChunkIndex, now_s: float) -> None:
        """`chunk` was sent because it is new or changed."""
        self._sent_s.pop(chunk, None)
        self._sent_s[chunk] = now_s

    def take(self, now_s: float) -> ChunkIndex | None:
        """The chunk to be sent once more now, if any."""
        if not self._sent_s:
            return None
        chunk, sent_s = next(iter(self._sent_s.items()))
        if now_s < max(sent_s + self._after_s, self._due_s):
            return None
        del self._sent_s[chunk]
        self._due_s = now_s + self._period_s
        return chunk

    def clear(self) -> None:
        """Nobody looks: whoever comes gets everything."""
        self._sent_s.clear()
