# SPDX-License-Identifier: Apache-2.0
"""What an overhang parts is joined: tables, and pieces whose shares and gaps are known."""

from __future__ import annotations

import numpy as np
import pytest
from segment_scenes import Scene, box

from worldsystem_core.frames import Camera
from worldsystem_segment.geometric.overhang import MAX_GAP, MIN_SHARE, join_overhangs
from worldsystem_segment.objects.view import View, make_view, usable

CAMERA = Camera.from_horizontal_fov(160, 120, np.deg2rad(60.0))
UP_CAM = np.array([0.0, -1.0, 0.0], np.float32)
TO_CAMERA, UPWARD = (0.0, 0.0, -1.0), (0.0, -1.0, 0.0)
TABLE, CRATE = (1, 2, 3), 4  # its top and two legs


def _table_from(eye) -> tuple[View, np.ndarray, np.ndarray]:
    """A table with a crate on it: the view, the truth of each pixel, and the vertical."""
    scene = Scene()
    scene.put(box((0, 0, 0.7), (1.6, 0.9, 0.06)), colour=(120, 80, 40))
    for x in (-0.7, 0.7):
        scene.put(box((x, -0.4, 0.335), (0.15, 0.1, 0.67)), colour=(90, 60, 30))
    scene.put(box((0, 0.05, 0.93), (0.5, 0.4, 0.4)), colour=(200, 30, 30))
    keyframe, truth = scene.caster().shot(0, eye, (0, 0, 0.5))
    view = make_view(keyframe, usable(keyframe, 0.1), 1.0, 320)
    up_cam = (keyframe.world_from_cam[:3, :3].T @ (0, 0, 1)).astype(np.float32)
    return view, np.where(view.valid, truth, 0).astype(np.int32), up_cam


def test_a_table_top_is_joined_with_its_legs_and_a_crate_on_it_is_not() -> None:
    view, truth, up_cam = _table_from((0.3, -2.5, 1.3))
    joined = join_overhangs(truth, view, up_cam)
    table, crate = (set(np.unique(joined[np.isin(truth, of)])) for of in (TABLE, CRATE))
    assert len(table) == len(crate) == 1
    assert table != crate
    assert set(np.unique(joined)) == {0, 1, 2}  # dense, and what was nobody's still is
    assert np.array_equal(joined == 0, truth == 0)


def _pieces(share: float, gap: float, *, looks: tuple = TO_CAMERA) -> tuple[View, np.ndarray]:
    """Two upright boards of 40 px width and 1 unit height, one 3 units away, one over it.

    `share` of the widths lie over each other; the upper one is `gap` nearer to the camera.
    """
    labels = np.zeros((CAMERA.height, CAMERA.width), np.int32)
    labels[60:90, 60:100] = 1
    beginning = 100 - round(share * 40)
    labels[30:60, beginning : beginning + 40] = 2
    depth = np.where(labels == 2, 3.0 - gap, 3.0)
    v, u = np.mgrid[0 : CAMERA.height, 0 : CAMERA.width]
    rays = np.stack([(u - CAMERA.cx) / CAMERA.fx, (v - CAMERA.cy) / CAMERA.fy, np.ones(u.shape)])
    normals = np.broadcast_to(np.array(looks, np.float32), (*labels.shape, 3))
    view = View(
        keyframe_id=0,
        stride=1,
        camera=CAMERA,
        rgb=np.zeros((*labels.shape, 3), np.uint8),
        valid=np.ones(labels.shape, bool),
        points_cam=np.moveaxis(rays * depth, 0, -1).astype(np.float32),
        normals=normals,
        world_from_cam=np.eye(4),
        noise=0.0,
    )
    return view, labels


def _is_joined(view: View, labels: np.ndarray) -> bool:
    joined = join_overhangs(labels, view, UP_CAM)
    assert np.array_equal(joined > 0, labels > 0)
    return len(np.unique(joined[labels > 0])) == 1


@pytest.mark.parametrize(
    ("share", "joins"),
    [(1.0, True), (MIN_SHARE + 0.1, True), (MIN_SHARE - 0.1, False), (0.1, False), (0.0, False)],
)
def test_pieces_are_joined_when_enough_of_their_width_lies_over_each_other(share, joins) -> None:
    assert _is_joined(*_pieces(share, 0.02)) == joins


def test_pieces_are_joined_when_the_gap_is_small_for_their_size() -> None:
    extent = 40 * 3.0 / CAMERA.fx  # of the lower board; the upper one is nearer and looks as large
    for gap, joins in ((0.0, True), (0.2 * MAX_GAP, True), (1.2 * MAX_GAP, False), (0.5, False)):
        assert _is_joined(*_pieces(1.0, gap * extent)) == joins


def test_nothing_is_joined_over_a_surface_that_looks_up() -> None:
    assert not _is_joined(*_pieces(1.0, 0.02, looks=UPWARD))


def test_what_lies_behind_the_lower_piece_does_not_hang_over_it() -> None:
    assert not _is_joined(*_pieces(1.0, -0.1))


def test_a_single_piece_and_none_stay_as_they_are() -> None:
    view, labels = _pieces(1.0, 0.02)
    alone = np.minimum(labels, 1)
    assert np.array_equal(join_overhangs(alone, view, UP_CAM), alone)
    assert not join_overhangs(np.zeros_like(labels), view, UP_CAM).any()
