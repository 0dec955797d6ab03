# SPDX-License-Identifier: Apache-2.0
"""The paints of a scene: which material, with which colours and which seed."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Float64, Int32, Int64, UInt8

from worldsystem_sim.textures import Material

Srgb = tuple[float, float, float]


def linear_from_srgb(srgb: Float[np.ndarray, "*s 3"]) -> Float64[np.ndarray, "*s 3"]:
    """Linear light of display values in 0 … 1 (a plain power of 2.2)."""
    return np.asarray(srgb, dtype=np.float64) ** 2.2


class Palette:
    """A growing list of paints; each has its own texture seed."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._kinds: list[int] = []
        self._colours: list[tuple[Srgb, Srgb]] = []

    def add(self, material: Material, main: Srgb, second: Srgb) -> int:
        """Add a paint of two sRGB colours (0 … 1); returns its index."""
        self._kinds.append(int(material))
        self._colours.append((main, second))
        return len(self._kinds) - 1

    def kinds(self) -> Int32[np.ndarray, "p"]:
        """Material of each paint."""
        return np.array(self._kinds, dtype=np.int32)

    def seeds(self) -> Int64[np.ndarray, "p"]:
        """Texture seed of each paint."""
        return 1000 * (np.arange(len(self._kinds), dtype=np.int64) + 1) + 7_000_003 * self._seed

    def linear_colours(self) -> Float64[np.ndarray, "p 2 3"]:
        """Both colours of each paint in linear light."""
        return linear_from_srgb(np.array(self._colours, dtype=np.float64))

    def mean_srgb(self) -> UInt8[np.ndarray, "p 3"]:
        """The main colour of each paint for display."""
        main = np.array([main for main, _ in self._colours])
        return np.asarray(np.round(255 * np.clip(main, 0, 1)), dtype=np.uint8)
