# SPDX-License-Identifier: Apache-2.0
"""Keyframes that show the middle of their picture: where page and Rerun show what is in them."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from page_reader import PageReader
from world_for_viewers import picture, track_frame

from worldsystem_core.frames import Camera
from worldsystem_core.objects import TrackFrame
from worldsystem_viewer.config import ViewerConfig
from worldsystem_viewer.picture import PictureEncoder
from worldsystem_viewer.protocol import ObjectDetail, TracksUpdate
from worldsystem_viewer.whole_picture import whole_camera

LEFT = 140  # of the square in the middle of 640 x 360


def _of_the_square(whole: TrackFrame) -> TrackFrame:
    (track,) = whole.tracks
    x0, y0, x1, y1 = track.box_px
    track = replace(track, box_px=(x0 - LEFT, y0, x1 - LEFT, y1))
    labels = np.ascontiguousarray(whole.labels[:, LEFT : LEFT + 360])
    return replace(whole, tracks=(track,), labels=labels)


def test_tracks_of_the_middle_of_a_picture_are_shown_where_they_are_in_the_whole(page_server):
    whole = track_frame(0.5)
    square = _of_the_square(whole)
    page_server.image(picture(0.5), 1, square.labels)
    page_server.tracks(square)
    page = PageReader(page_server.port)
    page.tell(object=7)
    page.read_until(lambda p: {TracksUpdate, ObjectDetail} <= p.newest.keys())
    told = page.newest[TracksUpdate]
    assert (told.width, told.height) == (640, 360)
    assert told.box_px.tolist() == [list(whole.tracks[0].box_px)]
    crop = cv2.imdecode(page.newest[ObjectDetail].jpeg, cv2.IMREAD_COLOR)
    x0, _, x1, _ = whole.tracks[0].box_px
    assert crop.shape[1] == pytest.approx(1.4 * (x1 - x0), abs=3)
    page.close()


def test_tint_and_camera_of_the_middle_are_those_of_the_whole_picture():
    whole, rgb = track_frame(0.5), picture(0.5)
    encoder = PictureEncoder(ViewerConfig(), wanted=lambda: True, publish=lambda _: None)
    of_square = encoder._encoded(rgb, 1, _of_the_square(whole).labels)
    assert np.array_equal(of_square.jpeg, encoder._encoded(rgb, 1, whole.labels).jpeg)
    middle = Camera(width=360, height=360, fx=300.0, fy=300.0, cx=179.5, cy=179.5)
    camera = whole_camera(middle, (640, 360))
    assert (camera.width, camera.height) == (640, 360)
    assert (camera.fx, camera.fy) == (300.0, 300.0)
    assert (camera.cx, camera.cy) == (319.5, 179.5)
