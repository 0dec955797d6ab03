# SPDX-License-Identifier: Apache-2.0
"""The keyframes' dense geometry, compressed in memory until it is saved; bounded."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import numpy as np
from jaxtyping import UInt8

from worldsystem_core.pages import in_own_pages
from worldsystem_core.reconstruction import Keyframe
from worldsystem_slam3r.maps.keyframe_file import DensePart, encode_dense

_NOTHING = np.zeros(0, np.uint8)


class DenseMemory:
    """Functions that give the bytes of each keyframe's dense part.

    Those in memory (about 150 kB each) leave, oldest first, when they take more than `budget_bytes`
    (0: none are kept), and `let_go` counts them: where such a keyframe was saved before, its
    surface stays there; in another folder it is saved without.
    """

    def __init__(self, budget_bytes: int) -> None:
        self._budget = budget_bytes
        self._packed: OrderedDict[int, UInt8[np.ndarray, "n"]] = OrderedDict()
        self._elsewhere: dict[int, Callable[[], bytes]] = {}
        self._size = 0
        self.let_go = 0
        self._without: set[int] = set()

    def __len__(self) -> int:
        return len(self._packed) + len(self._elsewhere)

    @property
    def size_bytes(self) -> int:
        """Memory in use."""
        return self._size

    def add(self, keyframe: Keyframe, unit: float) -> None:
        """Keep the dense part of a keyframe whose points are told `unit` times as large."""
        if not self._budget:
            return
        data = encode_dense(DensePart.of(keyframe, unit))
        self.remove(keyframe.id)
        (self._packed[keyframe.id],) = in_own_pages(np.frombuffer(data, np.uint8))
        self._size += len(data)
        while self._size > self._budget and self._packed:
            oldest, packed = self._packed.popitem(last=False)
            self._size -= len(packed)
            self._without.add(oldest)
            self.let_go += 1

    def add_packed(self, id: int, content: Callable[[], bytes]) -> None:
        """A part that lies on disk already."""
        self._elsewhere[id] = content

    def remove(self, id: int) -> None:
        """Forget a keyframe."""
        self._size -= len(self._packed.pop(id, _NOTHING))
        self._elsewhere.pop(id, None)
        self._without.discard(id)

    def was_let_go(self, id: int) -> bool:
        """Whether a keyframe had a part for which there was no room."""
        return id in self._without

    def packed(self, id: int) -> Callable[[], bytes] | None:
        """What gives the bytes, or None where the part was let go or never was."""
        data = self._packed.get(id)
        if data is not None:
            return data.tobytes
        return self._elsewhere.get(id)
