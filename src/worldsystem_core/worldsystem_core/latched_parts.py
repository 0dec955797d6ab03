# SPDX-License-Identifier: Apache-2.0
"""What a latched topic told last, where each of its publishers tells a part of it."""

from __future__ import annotations

from collections.abc import Callable

_MOST_PARTS = 64


def only_part(_: bytes) -> str:
    """For topics of one publisher."""
    return ""


class LatchedParts:
    """The newest message of each part, as `part_of` names that of a message; one thread at a time.

    Of more than 64 parts those that were told longest ago go.
    """

    def __init__(self, part_of: Callable[[bytes], str]) -> None:
        self.part_of = part_of
        self._newest: dict[str, bytes] = {}

    def keep(self, part: str, message: bytes) -> None:
        """`message` is the newest of `part`."""
        self._newest.pop(part, None)
        self._newest[part] = message
        if len(self._newest) > _MOST_PARTS:
            del self._newest[next(iter(self._newest))]

    @property
    def messages(self) -> list[bytes]:
        """All that are kept, the oldest first."""
        return list(self._newest.values())
