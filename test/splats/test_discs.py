# SPDX-License-Identifier: Apache-2.0
"""Discs lie in the surface, close it, and are what the plain twin says."""

from __future__ import annotations

import numpy as np
from splat_scenes import CAMERA, plane_pointmap

from worldsystem_core.splats.discs import FLATNESS, discs_from_pointmap, relative_noise
from worldsystem_core.splats.gaussians import matrices_of, quaternions_wxyz
from worldsystem_core.splats.raster_reference import surface_at

GREY = np.full((CAMERA.height, CAMERA.width, 3), 128, np.uint8)
SLANTED = np.array([0.4, -0.3, -0.8660254])


def covariances(discs):
    axes = matrices_of(discs.rotations).astype(np.float64)
    return axes * discs.scales[:, None, :].astype(np.float64) ** 2 @ axes.transpose(0, 2, 1)


def test_every_pixel_of_a_plane_gets_a_disc_that_lies_in_it():
    discs = discs_from_pointmap(plane_pointmap(SLANTED, 3.0), GREY)
    assert len(discs) == CAMERA.width * CAMERA.height
    assert np.allclose(discs.means @ SLANTED, -3.0, atol=1e-5)
    thin = matrices_of(discs.rotations)[:, :, 2]
    assert (thin @ SLANTED).min() > 1 - 1e-4
    width = np.linalg.norm(discs.means, axis=1) / CAMERA.fx  # of a pixel, at most
    assert (discs.scales[:, 2] < FLATNESS * width).all()


def test_discs_are_those_of_the_plain_twin():
    pointmap = plane_pointmap(SLANTED, 3.0)
    pointmap[20:, 25:] *= 0.7  # an edge in depth
    discs = discs_from_pointmap(pointmap, GREY)
    found = covariances(discs).reshape(CAMERA.height, CAMERA.width, 3, 3)
    for v, u in ((0, 0), (35, 47), (10, 10), (20, 25), (19, 30), (30, 24), (25, 30)):
        _, wanted = surface_at(pointmap, v, u)
        assert np.abs(found[v, u] - wanted).max() < 2e-3 * np.abs(wanted).max()  # float32


def test_an_edge_in_depth_is_not_bridged():
    pointmap = plane_pointmap(np.array([0.0, 0.0, -1.0]), 3.0)
    pointmap[:, 24:] *= 0.5
    discs = discs_from_pointmap(pointmap, GREY)
    pixel = 3.0 / CAMERA.fx
    assert discs.scales.max() < 0.7 * pixel


def test_the_ramp_of_a_blurred_edge_gives_dots_and_no_spikes():
    wall = plane_pointmap(np.array([0.0, 0.0, -1.0]), 3.0)
    ramp = 0.8 * wall[:, 24]
    wall[:, 24:] *= 0.5
    wall[:, 24] = ramp
    discs = discs_from_pointmap(wall, GREY)
    assert len(discs) == GREY[..., 0].size
    assert discs.scales.max() < 0.8 * 3.0 / CAMERA.fx


def test_a_floor_seen_at_a_grazing_angle_stays_a_floor():
    floor = plane_pointmap(np.array([0.0, -1.0, 0.0]), 1.5)
    floor[:23] = np.nan  # above the horizon, and just below it
    normals = matrices_of(discs_from_pointmap(floor, GREY).rotations)[:, :, 2]
    assert (normals @ [0.0, -1.0, 0.0]).min() > 0.999


def test_unknown_and_doubtful_pixels_get_no_disc():
    pointmap = plane_pointmap(SLANTED, 3.0)
    pointmap[3, 4] = np.nan
    confidence = np.ones(GREY.shape[:2], np.float32)
    confidence[5, :] = 0.01
    discs = discs_from_pointmap(pointmap, GREY, confidence)
    assert len(discs) == GREY[..., 0].size - 1 - CAMERA.width
    assert np.isfinite(discs.means).all()
    assert np.isfinite(discs.rotations).all()


def test_a_lone_pixel_faces_the_camera():
    pointmap = plane_pointmap(SLANTED, 3.0)
    lone = np.full_like(pointmap, np.nan)
    lone[10:12, 10:12] = pointmap[10:12, 10:12]
    lone[30, 30] = pointmap[30, 30]
    discs = discs_from_pointmap(lone, GREY)
    normal = matrices_of(discs.rotations)[-1, :, 2]
    ray = discs.means[-1] / np.linalg.norm(discs.means[-1])
    assert normal @ ray < -0.999


def test_nothing_known_gives_nothing():
    nothing = np.full((4, 5, 3), np.nan, np.float32)
    assert len(discs_from_pointmap(nothing, np.zeros((4, 5, 3), np.uint8))) == 0


def test_noise_is_measured_and_smoothed_away_along_the_surface():
    clean = plane_pointmap(SLANTED, 3.0)
    factor = 1 + np.random.default_rng(1).normal(0, 0.01, clean.shape[:2]).astype(np.float32)
    noisy = clean * factor[..., None]
    known = np.ones(clean.shape[:2], bool)
    assert abs(relative_noise(np.linalg.norm(noisy, axis=-1), known) - 0.01) < 0.002
    rough = np.abs(noisy @ SLANTED + 3.0).mean()
    smooth = np.abs(discs_from_pointmap(noisy, GREY).means @ SLANTED + 3.0).mean()
    assert smooth < 0.55 * rough


def test_quaternions_survive_the_way_through_matrices():
    q = np.random.default_rng(0).normal(size=(200, 4)).astype(np.float32)
    q[:4] = np.eye(4)
    q /= np.linalg.norm(q, axis=1, keepdims=True)
    back = quaternions_wxyz(matrices_of(q))
    assert np.abs(np.abs((back * q).sum(axis=1)) - 1).max() < 1e-5
