# SPDX-License-Identifier: Apache-2.0
"""The compiled loops over pixels against their plain twins, on a noisy view with unknown parts."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import plain_pixels as plain
import pytest
from numba.core.dispatcher import Dispatcher
from segment_scenes import ROOM_EYE, room

from worldsystem_segment import precompile
from worldsystem_segment.config import SegmentConfig
from worldsystem_segment.geometric import (
    ground_kernels,
    instance_kernels,
    pixel_kernels,
    plane_kernels,
)
from worldsystem_segment.geometric.backend import GeometricBackend
from worldsystem_segment.objects import track_kernels, view_kernels
from worldsystem_segment.objects.normals import planes_of
from worldsystem_segment.objects.view import make_view, usable

KERNELS = (
    pixel_kernels, view_kernels, ground_kernels, instance_kernels, plane_kernels, track_kernels,
)  # fmt: skip
FEW = 1e-4  # share of pixels at which float32 rounds a comparison to the other side


@pytest.fixture(scope="module")
def keyframe():
    return _keyframe()


def _keyframe():
    target = (ROOM_EYE[0] + 3.0, ROOM_EYE[1] + 2.0, 0.3)
    shot, _ = room().caster().shot(0, ROOM_EYE, target, noise=0.01)
    pointmap, confidence = shot.pointmap.copy(), shot.confidence.copy()
    pointmap[20:30, 40:70] = np.nan
    confidence[60:64] = 0.0
    return replace(shot, pointmap=pointmap, confidence=confidence)


@pytest.fixture(scope="module")
def view(keyframe):
    return make_view(keyframe, usable(keyframe, 0.1), 2.0, 320)


@pytest.fixture(scope="module")
def planes(view):
    return planes_of(view.points_cam), planes_of(view.normals)


@pytest.fixture(autouse=True)
def quiet():
    with np.errstate(invalid="ignore", divide="ignore"):
        yield


def _differing(a, b) -> float:
    return float((np.asarray(a).astype(bool) != np.asarray(b).astype(bool)).mean())


def test_usable_points_are_finite_ahead_and_sure(keyframe) -> None:
    for least in (0.0, 0.1):
        given = keyframe.pointmap, keyframe.confidence, least
        assert (view_kernels.usable_points(*given) == plain.usable_points(*given)).all()
    assert not view_kernels.usable_points(-keyframe.pointmap, keyframe.confidence, 0.0).any()


def test_smoothing_is_that_of_a_gaussian_bilateral_filter(keyframe) -> None:
    valid = plain.usable_points(keyframe.pointmap, keyframe.confidence, 0.1)
    log = np.log(np.where(valid, keyframe.pointmap[..., 2], 1)).astype(np.float32)
    framed = np.pad(np.where(valid, log, view_kernels.FAR), 4, mode="reflect")
    ours = view_kernels.bilateral(framed, 4, 0.03, 3.0)
    theirs = plain.bilateral(log, valid, 4, 0.03, 3.0)
    apart = np.abs(ours - theirs)[valid]
    assert np.percentile(apart, 99) < 1e-3  # a thirtieth of the filter's range
    assert apart.max() < 0.01


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_thinning_keeps_every_so_many_pixels_as_they_are(keyframe, stride) -> None:
    mask = plain.usable_points(keyframe.pointmap, keyframe.confidence, 0.1)
    given = keyframe.rgb, mask, keyframe.pointmap, stride
    for ours, twin in zip(view_kernels.thinned(*given), plain.thinned(*given), strict=True):
        np.testing.assert_array_equal(ours, twin)


def test_vectors_are_those_of_their_pixels(planes) -> None:
    pixels = np.array([5, 0, 7000, 5])
    ours = view_kernels.vectors_at(planes[0], pixels)
    np.testing.assert_array_equal(ours, plain.vectors_at(planes[0], pixels))
    assert view_kernels.vectors_at(planes[0], pixels[:0]).shape == (0, 3)


def test_points_lie_on_their_rays(keyframe, view) -> None:
    for stride in (1, 2):
        depth = np.ascontiguousarray(view.depth[::stride, ::stride])
        points = view_kernels.on_rays(keyframe.pointmap, stride, depth)
        twin = plain.on_rays(keyframe.pointmap, stride, depth)
        np.testing.assert_allclose(points, twin, rtol=1e-5, atol=1e-6)


def test_normals_are_those_of_the_slopes(view) -> None:
    random = np.random.default_rng(0)
    slopes = random.normal(0, 1e-3, (3, *view.valid.shape)).astype(np.float32)
    slopes[0] += 0.3
    lens = np.array([200, 210, 160, 90], np.float32)
    ours = view_kernels.normals_of_slopes(*slopes, view.valid, lens)
    np.testing.assert_allclose(ours, plain.normals_of_slopes(*slopes, view.valid, lens), atol=1e-4)


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_labels_are_drawn_at_full_size_with_their_boxes(stride) -> None:
    random = np.random.default_rng(stride)
    small = random.integers(0, 6, (7, 9)).astype(np.uint16)
    small[small == 4] = 0  # a number without a pixel
    usable_px = random.random((7 * stride - stride // 2, 9 * stride - stride // 2)) > 0.3
    ids = np.array([0, 30, 10, 20, 50, 40], np.uint16)
    labels, places = view_kernels.draw(small, stride, usable_px, ids)
    twin, twin_places = plain.draw(small, stride, usable_px, ids)
    assert (labels == twin).all()
    found = [tuple(place) if place[4] else None for place in places[1:].tolist()]
    assert found == twin_places


def test_nothing_is_cut_where_depth_and_normals_go_on(view, planes) -> None:
    limits = np.array([np.exp(0.05), np.exp(0.03), np.cos(np.deg2rad(40))], np.float32)
    given = *planes, view.valid, view.valid, limits, (2, 4, 3), np.float32(0.012)
    ours, twin = pixel_kernels.uncut(*given), plain.uncut(*given)
    assert _differing(ours, twin) < FEW
    assert 0.02 < (view.valid & (ours == 0)).mean() < 0.5


def test_labels_grow_to_their_neighbours_of_one_depth(view) -> None:
    labels = np.zeros(view.valid.shape, np.int32)
    labels[40:60, 30:50], labels[40:60, 53:80], labels[100:110, 100:200] = 1, 2, 3
    distance, nearest = cv2.distanceTransformWithLabels(
        (labels == 0).astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    depth = np.ascontiguousarray(view.depth)
    given = labels, view.valid, depth, nearest, distance, np.float32(5), np.float32(0.1)
    ours = pixel_kernels.grown(*given)
    assert (ours == plain.grown(*given)).all()
    assert (ours > 0).sum() > (labels > 0).sum()


def test_vectors_become_four_channels(view, planes) -> None:
    ours = pixel_kernels.four_channels(planes[0], view.valid, 2)
    np.testing.assert_array_equal(ours, plain.four_channels(planes[0], view.valid, 2))


def test_another_camera_sees_points_where_projection_says(planes) -> None:
    turn = cv2.Rodrigues(np.array([0.05, -0.2, 0.02]))[0]
    there_from_here = np.column_stack([turn, (0.1, 0.02, -0.4)]).astype(np.float32)
    given = planes[0], there_from_here, np.array([250, 250, 160, 90], np.float32), (320, 180)
    where, inside = pixel_kernels.seen_at(*given)
    twin, twin_inside = plain.seen_at(*given)
    assert 0.2 < inside.mean() < 0.95
    assert _differing(inside, twin_inside) < FEW
    both = inside & twin_inside
    np.testing.assert_allclose(where[both], twin[both], atol=1e-2)
    assert (where[~inside] == -1).all()


def test_colour_edges_part_what_differs_in_tint(view) -> None:
    lab = cv2.cvtColor(view.rgb, cv2.COLOR_RGB2LAB)
    tint = pixel_kernels.tints(lab, np.float32(60), np.float32(20))
    np.testing.assert_allclose(tint, plain.tints(lab, 60.0, 20.0), atol=1e-3)
    labels = np.zeros(view.valid.shape, np.int32)
    labels[20:120, 20:150], labels[20:160, 150:300] = 1, 2
    ours = pixel_kernels.of_one_colour(labels, tint, np.float32(24), np.float32(45))
    assert (ours == plain.of_one_colour(labels, tint, 24, 45)).all()
    assert (labels > 0).sum() - ours.sum() > 0


def _compiled() -> dict[str, list[str]]:
    """The argument types that each kernel has been compiled for."""
    return {
        f"{module.__name__}.{name}": sorted(str(types) for types in kernel.signatures)
        for module in KERNELS
        for name, kernel in vars(module).items()
        if isinstance(kernel, Dispatcher) and not name.startswith("_")
    }


def test_a_keyframe_needs_no_loop_that_was_not_compiled_before() -> None:
    """In a process of its own: in this one other tests have compiled loops, too."""
    code = "import test_pixel_kernels; test_pixel_kernels.segment_a_keyframe()"
    here = Path(__file__).parent
    subprocess.run([sys.executable, "-c", code], cwd=here, check=True, timeout=250.0)


def segment_a_keyframe() -> None:
    precompile.warm_up()
    ready = _compiled()
    assert all(ready.values())
    backend, keyframe = GeometricBackend(SegmentConfig()), _keyframe()
    for number in range(2):
        backend.feed(replace(keyframe, id=number), ())
    assert _compiled() == ready
