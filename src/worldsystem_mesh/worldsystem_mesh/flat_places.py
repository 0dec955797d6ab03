# SPDX-License-Identifier: Apache-2.0
"""A dictionary from small whole numbers to places, as flat as there are numbers.

Four bytes a number, where a `dict` takes a hundred: of a map on disk there are millions
(docs/decisions/079).
"""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping

import numpy as np

_NOWHERE = -1
_FIRST_ROOM = 1024


class FlatPlaces(MutableMapping[int, int]):
    """Places from 0 on by keys from 0 on; what it takes follows the highest key."""

    def __init__(self) -> None:
        self._places = np.full(_FIRST_ROOM, _NOWHERE, np.int32)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[int]:
        return iter(np.flatnonzero(self._places != _NOWHERE).tolist())

    def __contains__(self, key: object) -> bool:
        return isinstance(key, (int, np.integer)) and self._at(int(key)) != _NOWHERE

    def __getitem__(self, key: int) -> int:
        place = self._at(key)
        if place == _NOWHERE:
            raise KeyError(key)
        return place

    def __setitem__(self, key: int, place: int) -> None:
        if key >= len(self._places):
            more = max(key + 1 - len(self._places), len(self._places) // 2)
            self._places = np.concatenate([self._places, np.full(more, _NOWHERE, np.int32)])
        self._count += int(self._places[key] == _NOWHERE)
        self._places[key] = place

    def __delitem__(self, key: int) -> None:
        if self._at(key) == _NOWHERE:
            raise KeyError(key)
        self._places[key] = _NOWHERE
        self._count -= 1

    def _at(self, key: int) -> int:
        return int(self._places[key]) if 0 <= key < len(self._places) else _NOWHERE
