# SPDX-License-Identifier: Apache-2.0
"""A keyframe may show the middle of its picture alone; masks are of the whole one."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from segment_scenes import ROOM_EYE, room

from worldsystem_core.frames import Camera
from worldsystem_core.middle_parts import amid_black, middle_of
from worldsystem_core.reconstruction import Keyframe
from worldsystem_segment.config import SegmentConfig
from worldsystem_segment.learned.backend import LearnedBackend
from worldsystem_segment.learned.mask_sessions import ObjectMask
from worldsystem_segment.learned.mask_tracker import Followed

MIDDLE = slice(70, 250)  # of 320 columns: a square of 180


class Knowing:
    """Follows each thing of one scene by its truth, and notes the pictures that it is shown."""

    problem = ""

    def __init__(self, truth: np.ndarray) -> None:
        self._masks = {int(n): ObjectMask(truth == n, 1.0) for n in np.unique(truth[truth > 0])}
        self.followed = {n: Followed(n, 0, Counter({f"thing {n}": 1})) for n in self._masks}
        self.shown: list[np.ndarray] = []

    def step(self, rgb, phrases) -> dict[int, ObjectMask]:
        self.shown.append(rgb)
        return self._masks


@pytest.fixture(scope="module")
def shot() -> tuple[Keyframe, np.ndarray]:
    return room().caster().shot(0, ROOM_EYE, (0.0, 1.5, 0.3), texture=0.1)


def squared(whole: Keyframe) -> Keyframe:
    """The middle of a keyframe, as `slam3r` would give it."""
    camera = whole.camera
    side = camera.height
    cut = Camera(
        width=side, height=side, fx=camera.fx, fy=camera.fy, cx=camera.cx - 70, cy=camera.cy
    )
    parts = {k: getattr(whole, k)[:, MIDDLE].copy() for k in ("pointmap", "confidence", "rgb")}
    return replace(whole, camera=cut, **parts)


def assert_labelled_as(frame, truth: np.ndarray) -> None:
    assert len(frame.tracks) >= 3
    for track in frame.tracks:
        own = truth == int(track.label.removeprefix("thing "))
        drawn = frame.labels == track.id
        assert (own & drawn).sum() > 0.9 * (own | drawn).sum()


def test_masks_of_the_whole_picture_lie_where_the_keyframe_shows_them(shot) -> None:
    whole, truth = shot
    backend = LearnedBackend(SegmentConfig(), Knowing(truth))
    backend.look(whole.frame_id, whole.rgb, ())
    assert_labelled_as(backend.feed(squared(whole), ()), truth[:, MIDDLE])


def test_a_keyframe_whose_picture_was_not_looked_at_is_shown_where_it_lies_in_it(shot) -> None:
    whole, truth = shot
    follower = Knowing(truth)
    backend = LearnedBackend(SegmentConfig(), follower)
    backend.look(whole.frame_id - 1, whole.rgb, ())
    keyframe = squared(whole)
    frame = backend.feed(keyframe, ())
    assert follower.shown[-1].shape == whole.rgb.shape
    np.testing.assert_array_equal(follower.shown[-1][:, MIDDLE], keyframe.rgb)
    assert_labelled_as(frame, truth[:, MIDDLE])


def test_without_any_picture_of_the_video_the_keyframe_is_looked_at_as_it_is(shot) -> None:
    whole, truth = shot
    follower = Knowing(truth[:, MIDDLE])
    backend = LearnedBackend(SegmentConfig(), follower)
    keyframe = squared(whole)
    assert_labelled_as(backend.feed(keyframe, ()), truth[:, MIDDLE])
    np.testing.assert_array_equal(follower.shown[-1], keyframe.rgb)


@pytest.mark.parametrize("film", [(720, 1280), (1280, 720), (480, 640), (224, 224)])
@pytest.mark.parametrize("size", [(224, 224), (126, 224), (98, 182), (84, 140)])
def test_a_picture_amid_black_has_the_films_proportions_and_is_its_middle(film, size) -> None:
    rgb = np.full((*size, 3), 255, np.uint8)
    whole = amid_black(rgb, film)
    assert whole.shape[1] / whole.shape[0] == pytest.approx(film[1] / film[0], rel=0.1)
    assert middle_of(whole[..., 0] > 0, size).shape == size
    assert middle_of(whole[..., 0] > 0, size).all()


@pytest.mark.parametrize("size", [(84, 140), (98, 168), (98, 182), (280, 504), (360, 640)])
def test_a_keyframe_of_nearly_the_pictures_proportions_shows_all_of_it(size) -> None:
    assert middle_of(np.ones((720, 1280), bool), size).shape == (720, 1280)
