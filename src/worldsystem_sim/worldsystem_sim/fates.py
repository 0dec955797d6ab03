# SPDX-License-Identifier: Apache-2.0
"""What became of each picture of a flight, a byte each: a flight may go on for days."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping

UNSENT = "unsent"
"""What is told of a picture without a fate: the flight was stopped before that was sent."""
_UNKNOWN = 0
_MOST_KINDS = 255


class Fates(MutableMapping[int, str]):
    """The fate of picture 0, 1, 2, …: sent, lost, …; a mapping of those that are known."""

    def __init__(self) -> None:
        self._codes = bytearray()
        self._names = [""]

    def __setitem__(self, number: int, fate: str) -> None:
        if number < 0:
            raise KeyError(number)
        if number >= len(self._codes):
            self._codes.extend(bytes(number + 1 - len(self._codes)))
        self._codes[number] = self._code(fate)

    def __getitem__(self, number: int) -> str:
        if not 0 <= number < len(self._codes) or self._codes[number] == _UNKNOWN:
            raise KeyError(number)
        return self._names[self._codes[number]]

    def __delitem__(self, number: int) -> None:
        self[number]
        self._codes[number] = _UNKNOWN

    def __iter__(self) -> Iterator[int]:
        return (number for number, code in enumerate(self._codes) if code != _UNKNOWN)

    def __len__(self) -> int:
        return len(self._codes) - self._codes.count(_UNKNOWN)

    def count(self, fate: str) -> int:
        """How many pictures met this fate."""
        return self._codes.count(self._names.index(fate)) if fate in self._names[1:] else 0

    def _code(self, fate: str) -> int:
        if fate not in self._names[1:]:
            if len(self._names) > _MOST_KINDS:
                raise ValueError(f"there are {_MOST_KINDS} kinds of fates already: '{fate}'")
            self._names.append(fate)
        return self._names.index(fate, 1)
