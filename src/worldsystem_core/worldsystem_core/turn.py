# SPDX-License-Identifier: Apache-2.0
"""A lock that nobody starves at: whoever waits longest has it next."""

from __future__ import annotations

import threading
from collections import deque
from types import TracebackType


class Turn:
    """One thread at a time, as often as it likes within itself, in the order in which they came.

    A lock of the standard library goes to whoever is quick: a thread that always has more to do
    takes it again before another one has woken up, for minutes. Use it in a `with`.
    """

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._waiting: deque[tuple[int, threading.Lock]] = deque()
        self._owner: int | None = None
        self._depth = 0
        self.given = 0
        """How often somebody got it so far."""

    @property
    def is_held(self) -> bool:
        """Whether somebody has it."""
        return self._owner is not None

    @property
    def waiting(self) -> int:
        """How many threads wait for it."""
        return len(self._waiting)

    def __enter__(self) -> Turn:
        me = threading.get_ident()
        if self._owner == me:  # nobody else can make that true or false
            self._depth += 1
            return self
        with self._guard:
            if self._owner is None:
                self._owner, self._depth = me, 1
                self.given += 1
                return self
            gate = threading.Lock()
            gate.acquire()
            self._waiting.append((me, gate))
        try:
            gate.acquire()  # until the one before hands it over
        except BaseException:  # the main thread may be interrupted
            self._give_up(me, gate)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._depth -= 1
        if self._depth == 0:
            self._hand_over()

    def _hand_over(self) -> None:
        with self._guard:
            if not self._waiting:
                self._owner = None
                return
            self._owner, gate = self._waiting.popleft()
            self._depth = 1
            self.given += 1
            gate.release()

    def _give_up(self, me: int, gate: threading.Lock) -> None:
        with self._guard:
            if (me, gate) in self._waiting:
                self._waiting.remove((me, gate))
                return
        self._hand_over()  # it had come meanwhile
