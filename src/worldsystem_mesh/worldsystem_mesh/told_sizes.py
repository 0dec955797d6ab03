# SPDX-License-Identifier: Apache-2.0
"""Sizes of keyframes since they were fused, whatever they were told relative to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping


class ToldSizes:
    """A keyframe that is told again, for a stage that began anew, is told in the size of now, and
    later sizes count from there. Where it lay already it is not fused again: its points still have
    the size in which they came first."""

    def __init__(self) -> None:
        self._sizes: dict[int, float] = {}
        self._at_last_telling: dict[int, float] = {}

    def begin(self, id: int) -> None:
        """The keyframe is fused as it is told."""
        self.forget((id,))

    def tell_again(self, ids: Iterable[int]) -> None:
        """The keyframes were told again and are not fused."""
        for key in ids:
            self._at_last_telling[key] = self._sizes.get(key, 1.0)

    def now(self, id: int) -> float:
        """The keyframe's size, as a factor on the points that were fused."""
        return self._sizes.get(id, 1.0)

    def since_fused(self, point_scale: Mapping[int, float]) -> dict[int, float]:
        """Sizes of now, relative to the last telling, as factors on the points that were fused."""
        before = self._at_last_telling
        found = {key: size * before.get(key, 1.0) for key, size in point_scale.items()}
        self._sizes.update(found)
        return found

    def forget(self, ids: Iterable[int]) -> None:
        """The keyframes are gone."""
        for key in ids:
            self._sizes.pop(key, None)
            self._at_last_telling.pop(key, None)

    def restore(self, id: int, size: float, at_last_telling: float) -> None:
        """What is known of a keyframe from elsewhere."""
        self._sizes[id] = size
        self._at_last_telling[id] = at_last_telling
