# SPDX-License-Identifier: Apache-2.0
"""Which keyframes a witness was told of, and which of them others stand in for."""

from __future__ import annotations

import time


class SeenKeyframes:
    """By their numbers, which a reconstruction that begins anew gives to others than before."""

    def __init__(self) -> None:
        self._there: dict[int, tuple[float, int]] = {}
        self._before: dict[int, int] = {}
        self._replaced: set[int] = set()

    def told(self, number: int, stamp_ns: int) -> None:
        """A keyframe captured then [ns] is there."""
        self._there[number] = (time.monotonic(), stamp_ns)
        self._before.pop(number, None)

    def gone(self, number: int, *, has_heir: bool) -> None:
        """One is withdrawn, also of before that was not told again yet; `has_heir`: replaced."""
        before_ns = self._before.pop(number, None)
        _, stamp_ns = self._there.pop(number, (0.0, before_ns))
        if has_heir and stamp_ns is not None:
            self._replaced.add(stamp_ns)

    def begin_anew(self) -> None:
        """What is told from now on is the whole map."""
        self._before |= {number: stamp_ns for number, (_, stamp_ns) in self._there.items()}
        self._there = {}

    def there(self) -> dict[int, tuple[float, int]]:
        """When each came [s] and was captured [ns]; of all that are not withdrawn."""
        return dict(self._there)

    def replaced(self) -> set[int]:
        """When those were captured [ns] that others stand in for: they are not lost."""
        return set(self._replaced)
