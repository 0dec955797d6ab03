# SPDX-License-Identifier: Apache-2.0
"""Discs are coloured so that all of them together draw the picture."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from plain_splats import prefiltered_plainly
from splat_scenes import CAMERA, plane_pointmap

from worldsystem_core.splats.colours import STEPS, enlarged, prefiltered
from worldsystem_core.splats.discs import WIDTH, discs_from_pointmap
from worldsystem_core.splats.raster import draw

SLANTED = np.array([0.4, -0.3, -0.8660254])
LARGE = CAMERA.resized(2 * CAMERA.width, 2 * CAMERA.height)
INNER = (slice(6, -6), slice(6, -6))  # the picture's rim has no discs beyond it
BLACK = np.zeros(3, np.float32)


def textured(height=CAMERA.height, width=CAMERA.width, seed=0):
    """Detail down to single pixels, of natural contrast."""
    rng = np.random.default_rng(seed)
    return rng.normal(128, 30, (height, width, 3)).clip(0, 255).astype(np.uint8)


def drawn(discs):
    return draw(discs, np.eye(4), LARGE).over(BLACK).astype(float)[INNER]


def test_discs_draw_the_picture_and_not_a_blurred_copy_of_it():
    picture = textured()
    discs = discs_from_pointmap(plane_pointmap(SLANTED, 3.0), picture)
    plain = replace(discs, rgb=(picture.reshape(-1, 3) / 255).astype(np.float32))
    wanted = enlarged(picture).astype(float)[INNER]
    blurred = np.abs(drawn(plain) - wanted).mean()
    assert np.abs(drawn(discs) - wanted).mean() < 0.6 * blurred  # noise: nothing is harder


def test_colours_are_those_of_the_plain_twin():
    rng = np.random.default_rng(1)
    picture = textured(9, 11)
    depth = rng.uniform(1, 2, (9, 11)).astype(np.float32)
    depth[4:, 6:] = 3.0  # equally near: the lower number is in front
    opacity = rng.uniform(0.7, 0.99, (9, 11)).astype(np.float32)
    opacity[2, 3:5] = 0  # unknown pixels
    known = opacity > 0
    found = prefiltered(picture, depth, opacity, known, WIDTH)
    wanted = prefiltered_plainly(enlarged(picture), picture, depth, opacity, WIDTH, STEPS)
    # float32 may round to the other side, seldom
    assert (np.abs(found - wanted[known]) > 1e-4).mean() < 0.01


def test_an_even_picture_is_drawn_as_bright_as_it_is():
    even = np.full((CAMERA.height, CAMERA.width, 3), (200, 90, 30), np.uint8)
    discs = discs_from_pointmap(plane_pointmap(SLANTED, 3.0), even)
    assert np.abs(drawn(discs) - [200, 90, 30]).mean() < 1.5  # rounding
    plain = replace(discs, rgb=np.full_like(discs.rgb, 1) * np.float32([200, 90, 30]) / 255)
    assert np.abs(drawn(plain) - [200, 90, 30]).mean() > 2.0  # a little black shows through


def test_colours_do_not_depend_on_which_pixels_are_chosen():
    picture = textured()
    depth = plane_pointmap(SLANTED, 3.0)[..., 2]
    opacity = np.full(depth.shape, 0.99, np.float32)
    everywhere = prefiltered(picture, depth, opacity, np.ones(depth.shape, bool), WIDTH)
    few = np.zeros(depth.shape, bool)
    few[10:13, 20:24] = few[0, 0] = few[-1, 30] = True
    found = prefiltered(picture, depth, opacity, few, WIDTH)
    assert np.abs(found - everywhere.reshape(*depth.shape, 3)[few]).max() < 1e-5


def test_the_hardest_picture_keeps_its_colours_in_range():
    chequered = np.indices((CAMERA.height, CAMERA.width)).sum(axis=0) % 2
    picture = np.repeat((255 * chequered)[..., None], 3, axis=2).astype(np.uint8)
    rgb = discs_from_pointmap(plane_pointmap(SLANTED, 3.0), picture).rgb
    assert rgb.min() >= 0
    assert rgb.max() <= 1


def test_an_enlarged_picture_has_no_halos():
    step = np.full((10, 12, 3), 50, np.uint8)
    step[:, 6:] = 200
    large = enlarged(step)
    assert large.shape == (20, 24, 3)
    assert (large.min(), large.max()) == (50, 200)
    assert np.array_equal(np.unique(large[:, :11]), [50])  # all four pixels around are 50
