# SPDX-License-Identifier: Apache-2.0
"""What Rerun's server may soon let go of, and with it all who open a viewer later."""

from __future__ import annotations

import logging
from collections import OrderedDict

from worldsystem_viewer.chunks import ChunkIndex

log = logging.getLogger(__name__)
Name = str | ChunkIndex
"""An entity, or a part of the surface."""


class Statics:
    """Static data by when it was logged last.

    The server holds every static message, also those that newer ones have replaced, and lets the
    oldest go when they are more than its memory of `most_bytes`. So what was logged longer than
    half of that ago is to be logged again.
    """

    def __init__(self, most_bytes: int) -> None:
        self._half = most_bytes // 2
        self._logged = 0
        self._bytes = 0
        self._held: OrderedDict[Name, tuple[int, int]] = OrderedDict()
        self._has_told = False

    def note(self, name: Name, size: int) -> None:
        """So many bytes of it were logged."""
        _, before = self._held.pop(name, (0, 0))
        self._logged += size
        self._bytes += size - before
        self._held[name] = (self._logged, size)

    def gone(self, name: Name, size: int) -> None:
        """Bytes were logged that clear it: they need not stay longer than what they clear."""
        self._logged += size
        self._bytes -= self._held.pop(name, (0, 0))[1]

    def due(self) -> Name | None:
        """What was logged longest ago, if that is too long; None as well where all together take
        more than half of the memory, since each would push out another."""
        if not self._held:
            return None
        name, (at, _) = next(iter(self._held.items()))
        if self._logged - at <= self._half:
            return None
        if self._bytes > self._half:
            self._tell()
            return None
        return name

    def _tell(self) -> None:
        if not self._has_told:
            self._has_told = True
            log.warning(
                "the surface takes %d MB of Rerun's memory, more than half: who opens it later "
                "sees a part alone; set viewer.rerun_mb higher",
                self._bytes / 1e6,
            )
