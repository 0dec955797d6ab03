# SPDX-License-Identifier: Apache-2.0
"""Colours are fitted to pictures; torch draws what the rasteriser draws."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from splat_scenes import wall_seen_from
from test_raster import scattered

from worldsystem_core.errors import MissingDependency
from worldsystem_core.frames import Camera
from worldsystem_core.geometry.sim3 import Sim3
from worldsystem_core.splats.discs import discs_from_pointmap
from worldsystem_core.splats.gaussians import Gaussians
from worldsystem_core.splats.raster import draw
from worldsystem_core.splats.refine import Photograph, refined
from worldsystem_core.splats.torch_raster import Viewpoint, gsplat_renderer, plain_renderer

torch = pytest.importorskip("torch", reason="torch is not installed")
SMALL = Camera.from_horizontal_fov(20, 15, np.radians(60.0))


def test_torch_draws_what_the_rasteriser_draws():
    some, viewpoint = scattered(), Viewpoint(np.eye(4), SMALL)
    picture = plain_renderer(some)(
        torch.from_numpy(some.rgb), torch.from_numpy(some.opacities), viewpoint
    ).numpy()
    drawn = draw(some, np.eye(4), SMALL)
    assert np.abs(picture[..., :3] - drawn.rgb).max() < 0.02  # 1/255 ends a tail there
    assert np.abs(picture[..., 3] - drawn.alpha).max() < 0.02


def test_wrong_colours_are_fitted_to_the_pictures():
    keyframe = wall_seen_from([0, 0, 0], 0, camera=SMALL)
    place = Sim3.from_pose(keyframe.world_from_cam)
    true = discs_from_pointmap(keyframe.pointmap, keyframe.rgb).transformed(place)
    rng = np.random.default_rng(0)
    wrong = replace(true, rgb=rng.uniform(0.2, 0.8, true.rgb.shape).astype(np.float32))
    photograph = Photograph(keyframe.rgb, Viewpoint(keyframe.world_from_cam, SMALL))
    better = refined(wrong, [photograph], plain_renderer(wrong), steps=80)

    def error(splats: Gaussians) -> float:
        drawn = draw(splats, keyframe.world_from_cam, SMALL)
        wanted = drawn.alpha[..., None] * keyframe.rgb / 255
        return float(np.abs(drawn.rgb - wanted).mean())

    assert error(better) < 0.3 * error(wrong)
    assert np.array_equal(better.means, wrong.means)


def test_nothing_to_fit_changes_nothing():
    some = scattered(5)
    assert refined(some, [], plain_renderer(some)) is some
    assert len(refined(Gaussians.empty(), [], plain_renderer(some))) == 0


def test_without_gsplat_drawing_on_the_gpu_says_what_to_install(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingDependency, match="pip install gsplat"):
        gsplat_renderer(scattered(5))
