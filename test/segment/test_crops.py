# SPDX-License-Identifier: Apache-2.0
"""Crops of objects: which are kept, which is the best, and what fusing several of them gains."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from segment_scenes import ROOM_EYE, room

from worldsystem_core.objects import Track, TrackFrame, TrackState
from worldsystem_segment.config import SegmentConfig
from worldsystem_segment.crops.enhance import enhance
from worldsystem_segment.crops.history import Crop, CropHistory, cut, sharpness
from worldsystem_segment.crops.pictures import ObjectPictures
from worldsystem_segment.segmenter import Segmenter


def _picture(seed: int, edge: int = 240) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(0, 255, (edge // 12, edge // 12, 3), np.uint8)
    return cv2.resize(noise, (edge, edge), interpolation=cv2.INTER_CUBIC)


def _frame(boxes: dict[int, tuple[int, int, int, int]], stamp: int, shape) -> TrackFrame:
    tracks = tuple(
        Track(
            id=i, label="box", score=0.9, box_px=b, area_px=1, age_frames=9,
            state=TrackState.CONFIRMED,
        )
        for i, b in boxes.items()
    )  # fmt: skip
    labels = np.zeros(shape[:2], np.uint16)
    return TrackFrame(frame_id=stamp, keyframe_id=0, stamp_ns=stamp, tracks=tracks, labels=labels)


def test_a_crop_has_a_margin_of_a_fifth_as_far_as_the_picture_goes() -> None:
    picture = _picture(0)
    (track,) = _frame({1: (100, 50, 150, 150)}, 0, picture.shape).tracks
    crop = cut(picture, track, 7)
    assert crop.box_px == (90, 30, 160, 170)
    assert (crop.rgb == picture[30:170, 90:160]).all()
    assert crop.whole
    (track,) = _frame({1: (0, 200, 100, 240)}, 0, picture.shape).tracks
    crop = cut(picture, track, 7)
    assert crop.box_px == (0, 192, 120, 240)
    assert not crop.whole
    (track,) = _frame({1: (10, 10, 14, 90)}, 0, picture.shape).tracks
    assert cut(picture, track, 7) is None


def test_the_sharpest_whole_crop_is_the_best_and_stays_whatever_comes() -> None:
    picture = _picture(1)
    history = CropHistory(per_object=5)
    for stamp in range(20):
        blurred = picture if stamp == 3 else cv2.GaussianBlur(picture, (0, 0), 3.0 + 0.1 * stamp)
        better = history.add(blurred, _frame({1: (60, 60, 160, 160)}, stamp, picture.shape))
        assert (better == [1]) == (stamp in (0, 3))
    assert history.best(1).stamp_ns == 3
    assert [crop.stamp_ns for crop in history.crops(1)] == [3, 16, 17, 18, 19]


def test_objects_and_bytes_are_bounded_and_what_was_seen_longest_ago_goes() -> None:
    picture = _picture(2)
    history = CropHistory(per_object=3, max_objects=4)
    for number in range(1, 8):
        history.add(picture, _frame({number: (60, 60, 160, 160)}, number, picture.shape))
    assert len(history) == 4
    assert history.forgotten == 3
    assert history.best(1) is None
    small = CropHistory(per_object=30, max_objects=100, max_mb=0.2)
    for number in range(30):
        small.add(picture, _frame({number % 5: (60, 60, 160, 160)}, number, picture.shape))
        assert small.bytes <= 200_000
    held = sum(c.rgb.nbytes for i in range(5) for c in small.crops(i))
    assert held == small.bytes


def test_objects_in_view_that_do_not_fit_together_cost_pictures_and_no_keyframe() -> None:
    picture, pictures = _picture(7, 720), ObjectPictures(SegmentConfig(crops_mb=1.0))
    corners = {n: (20 + 138 * (n % 5), 20 + 138 * (n // 5)) for n in range(1, 11)}
    boxes = {n: (x, y, x + 100, y + 100) for n, (x, y) in corners.items()}
    for stamp in range(5):  # each longer after the one before than `crop_period_s`
        frame = _frame(boxes, 3_000_000_000 * stamp, picture.shape)
        told = pictures.add(SimpleNamespace(rgb=picture), frame)
        assert all(pictures.history.crops(crop.id) for crop in told)
        assert pictures.history.bytes <= 1_000_000
    assert pictures.history.forgotten


def test_crops_of_two_objects_that_are_one_go_together() -> None:
    picture = _picture(3)
    history = CropHistory(per_object=4)
    for number in (1, 2, 2, 2):
        history.add(picture, _frame({number: (60, 60, 160, 160)}, number, picture.shape))
    history.rename(2, 1)
    assert len(history.crops(1)) == 4
    assert not history.crops(2)


def test_tracks_that_are_not_seen_or_not_sure_leave_no_crop() -> None:
    picture = _picture(4)
    frame = _frame({1: (60, 60, 160, 160)}, 0, picture.shape)
    (track,) = frame.tracks
    for state in (TrackState.TENTATIVE, TrackState.OCCLUDED):
        changed = Track(**{**vars(track), "state": state})
        shown = TrackFrame(**{**vars(frame), "tracks": (changed,)})
        assert CropHistory().add(picture, shown) == []


def _shifted_crops(truth: np.ndarray, count: int) -> list[Crop]:
    random = np.random.default_rng(5)
    crops = []
    for number in range(count):
        dx, dy = random.uniform(-2.0, 2.0, 2) if number else (0.0, 0.0)
        shift = np.array([[1, 0, dx], [0, 1, dy]], np.float32)
        moved = cv2.warpAffine(truth, shift, truth.shape[1::-1], borderMode=cv2.BORDER_REFLECT)
        small = cv2.resize(moved, (96, 96), interpolation=cv2.INTER_AREA).astype(np.float32)
        noisy = np.clip(small + random.normal(0, 12, small.shape), 0, 255).astype(np.uint8)
        crops.append(Crop(noisy, number, (0, 0, 96, 96), sharpness(noisy), True))
    return crops


def _psnr(a: np.ndarray, b: np.ndarray) -> float:
    inner = (slice(12, -12), slice(12, -12))
    error = np.mean((a[inner].astype(float) - b[inner]) ** 2)
    return float(10 * np.log10(255**2 / error))


def test_fusing_aligned_crops_gains_several_decibels_over_enlarging_one() -> None:
    truth = _picture(6, 192)
    crops = _shifted_crops(truth, 10)
    single = enhance(crops[0], [])
    fused = enhance(crops[0], crops)
    assert single.source_count == 1
    assert fused.source_count >= 8
    assert fused.rgb.shape == truth.shape
    assert _psnr(fused.rgb, truth) > _psnr(single.rgb, truth) + 3.0


def test_pictures_of_something_else_are_not_fused_in() -> None:
    crops = _shifted_crops(_picture(6, 192), 1)
    strangers = [_shifted_crops(_picture(seed, 192), 1)[0] for seed in range(20, 24)]
    assert enhance(crops[0], strangers).source_count == 1


@pytest.mark.parametrize("edge", [16, 300, 900])
def test_fused_pictures_are_of_bounded_size(edge) -> None:
    picture = _picture(7, 240)
    crop = Crop(cv2.resize(picture, (edge, edge)), 0, (0, 0, edge, edge), 1.0, True)
    assert max(enhance(crop, [crop]).rgb.shape) <= max(512, edge)


def test_a_best_crop_that_came_too_soon_is_told_when_its_time_has_come() -> None:
    sharp, pictures = _picture(8), ObjectPictures(SegmentConfig())
    blurred, second_ns = cv2.GaussianBlur(sharp, (0, 0), 3.0), 1_000_000_000
    told = []
    for at_s, picture in ((0, blurred), (1, sharp), (3, blurred), (6, blurred)):
        frame = _frame({1: (60, 60, 160, 160)}, at_s * second_ns, picture.shape)
        told += pictures.add(SimpleNamespace(rgb=picture), frame)
    assert [crop.stamp_ns // second_ns for crop in told] == [0, 1]


def test_no_picture_of_a_map_that_was_reset_is_told_or_kept() -> None:
    caster, segmenter, step_ns = room().caster(), Segmenter(), 500_000_000
    shots = [caster.shot(k, ROOM_EYE, (0.0, 1.5, 0.3))[0] for k in range(4)]
    for k, shot in enumerate(shots):  # the sharp one comes too soon after the first that is told
        rgb = cv2.GaussianBlur(shot.rgb, (0, 0), 2.0) if k < 3 else shot.rgb
        segmenter.feed(replace(shot, rgb=rgb, stamp_ns=k * step_ns))
    owed = next(iter(segmenter._pictures._owed))
    segmenter.remove([shot.id for shot in shots])
    blind = np.zeros_like(shots[0].confidence)
    segmenter.feed(replace(shots[0], id=9, stamp_ns=60 * step_ns, confidence=blind))
    assert segmenter.crops == []
    assert segmenter.enhanced(owed) is None


def test_what_made_way_before_a_reset_stays_counted() -> None:
    shot, segmenter = room().caster().shot(0, ROOM_EYE, (0.0, 1.5, 0.3))[0], Segmenter()
    segmenter.feed(shot)
    segmenter._pictures.history.forgotten = 3
    segmenter.remove([shot.id])
    assert segmenter.is_empty
    assert segmenter.counters()["crops_forgotten"] == 3
