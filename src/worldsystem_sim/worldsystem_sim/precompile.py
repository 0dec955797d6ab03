# SPDX-License-Identifier: Apache-2.0
"""`python -m worldsystem_sim.precompile`: compile the renderer ahead of its first picture.

The machine code is kept in numba's disk cache beside the modules; a second call finds it there.
"""

from __future__ import annotations

import numpy as np

from worldsystem_core.frames import Camera
from worldsystem_sim.paints import Palette
from worldsystem_sim.render import Renderer
from worldsystem_sim.scene import Instance, Scene
from worldsystem_sim.shapes import Builder
from worldsystem_sim.textures import Material


def precompile() -> None:
    """Render a tiny picture of one floor, which calls every compiled loop once."""
    palette, builder = Palette(1), Builder(instance=1)
    paint = palette.add(Material.GROUND, (0.35, 0.42, 0.22), (0.35, 0.42, 0.22))
    builder.box((-5.0, -5.0, -1.0), (5.0, 5.0, 0.0), paint)
    scene = Scene(1, builder.build(), palette, (Instance(1, "ground"),), np.zeros((0, 6)))
    pose = np.diag([1.0, -1.0, -1.0, 1.0])
    pose[2, 3] = 4.0
    Renderer(scene, Camera.from_horizontal_fov(16, 16, 1.0)).render(pose)


if __name__ == "__main__":
    precompile()
