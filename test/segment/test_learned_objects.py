# SPDX-License-Identifier: Apache-2.0
"""The logic around the networks, with a detector and masks that know the truth."""

from __future__ import annotations

import dataclasses
import threading
import time

import numpy as np
import pytest
from oracle import OracleDetector, OracleMasks, box_around
from segment_scenes import ROOM_EYE, room

from worldsystem_core.faults import MOST_FAULTS
from worldsystem_core.objects import TrackState
from worldsystem_segment.config import SegmentConfig
from worldsystem_segment.learned.backend import LearnedBackend
from worldsystem_segment.learned.detection_thread import DetectionThread
from worldsystem_segment.learned.mask_tracker import MaskTracker

NAMES = {1: "red box", 2: "table", 3: "lamp", 4: "ball", 5: "tower", 6: "chest", 7: "box", 8: "bin",
         9: "drum"}  # fmt: skip
PHRASES = tuple(NAMES.values())


class _Film:
    """Pictures whose truth is found again by the picture itself."""

    def __init__(self) -> None:
        self._truths: dict[bytes, np.ndarray] = {}

    def add(self, rgb: np.ndarray, truth: np.ndarray) -> None:
        self._truths[rgb.tobytes()] = truth

    def __call__(self, rgb: np.ndarray) -> np.ndarray:
        return self._truths[rgb.tobytes()]


def _tracker(film, *, every=2, names=NAMES, masks=None, **errors) -> MaskTracker:
    detections = DetectionThread(OracleDetector(film, names, **errors), synchronous=True)
    return MaskTracker(masks or OracleMasks(film), detections, every=every, max_objects=20)


def _moving_squares(count: int, frames: int, away=(0, 0)):
    """Squares in rows that wander; those of odd number are gone for the pictures `away`."""
    film, pictures = _Film(), []
    for frame in range(frames):
        truth = np.zeros((120, 240), np.int64)
        for number in range(1, count + 1):
            if number % 2 and away[0] <= frame < away[1]:
                continue
            row, column = divmod(number - 1, 7)
            x = 6 + 33 * column + int(4 * np.sin(0.2 * frame + number))
            y = 6 + 38 * row + int(4 * np.cos(0.3 * frame + number))
            truth[y : y + 24, x : x + 20] = number
        rgb = np.random.default_rng(frame).integers(0, 255, (120, 240, 3), np.uint8)
        film.add(rgb, truth)
        pictures.append(rgb)
    return film, pictures


@pytest.fixture(scope="module")
def room_film():
    """A look around the room: away from everything and back."""
    caster, film = room().caster(), _Film()
    turns = np.deg2rad(
        [0, 0, -2, -4, -6, -8, -40, -100, -150, -180, -150, -100, -40, -5, 0, 0, 2, 4]
    )
    shots = []
    for k, turn in enumerate(turns):
        target = (4 * np.sin(turn), ROOM_EYE[1] + 4 * np.cos(turn), 0.3)
        keyframe, truth = caster.shot(k, ROOM_EYE, target, noise=0.005, texture=0.1)
        film.add(keyframe.rgb, truth)
        shots.append((dataclasses.replace(keyframe, stamp_ns=k * 500_000_000), truth))
    return film, shots


def _phrases(backend):
    return backend.understand(". ".join(PHRASES) + ".").phrases


def test_objects_of_the_picture_become_objects_of_the_map_with_their_phrases(room_film) -> None:
    film, shots = room_film
    backend = LearnedBackend(SegmentConfig(), _tracker(film, every=1))
    for keyframe, _ in shots[:6]:
        frame = backend.feed(keyframe, _phrases(backend))
    truth = shots[5][1]
    for track in (t for t in frame.tracks if t.area_px):
        pixels = truth[frame.labels == track.id]
        assert NAMES[int(np.bincount(pixels).argmax())] == track.label
    labels = sorted(o.label for o in backend.objects(0, ()).objects)
    assert len(labels) == len(set(labels)) >= 7
    box = next(o for o in backend.objects(0, ()).objects if o.label == "red box")
    assert np.allclose(box.world_from_box[:3, 3], (-1.2, 1.6, 0.25), atol=0.2)
    assert box.candidates[0][0] == "red box"


def test_what_was_out_of_view_and_is_detected_anew_gets_its_old_id_from_the_map(room_film) -> None:
    film, shots = room_film
    # masks that forget at once: every return is a new object for the picture
    backend = LearnedBackend(SegmentConfig(), _tracker(film, every=1, masks=OracleMasks(film, 0)))
    phrases, held = _phrases(backend), []
    for keyframe, truth in shots:
        frame = backend.feed(keyframe, phrases)
        held.append(
            {
                int(np.bincount(truth[frame.labels == t.id]).argmax()): t.id
                for t in frame.tracks
                if t.area_px
            }
        )
    before, after = held[5], held[-1]
    common = before.keys() & after.keys()
    assert len(common) >= 5
    assert all(before[number] == after[number] for number in common)
    assert not held[9]


def test_a_prompt_that_changes_reports_other_objects_without_a_restart(room_film) -> None:
    film, shots = room_film
    backend = LearnedBackend(SegmentConfig(), _tracker(film, every=1))
    for keyframe, _ in shots[:6]:
        backend.feed(keyframe, _phrases(backend))
    only = backend.understand("table @0.5").phrases
    assert [o.label for o in backend.objects(0, only).objects] == ["table"]
    frame = backend.feed(dataclasses.replace(shots[5][0], id=99, frame_id=999), only)
    assert {t.label for t in frame.tracks if t.state is TrackState.CONFIRMED} == {"table"}


def test_a_thing_that_was_found_by_one_name_is_told_by_another_at_the_next_detection(room_film):
    film, shots = room_film
    names = dict(NAMES)
    backend = LearnedBackend(SegmentConfig(), _tracker(film, every=1, names=names))

    def told(prompt: str, number: int) -> set[str]:
        keyframe = dataclasses.replace(shots[5][0], id=number, frame_id=number)
        return {t.label for t in backend.feed(keyframe, backend.understand(prompt).phrases).tracks}

    before = [told("red box", number) for number in range(40)]
    assert before[5:] == [{"red box"}] * 35
    names[1] = "crate"
    assert told("crate", 40) == set()  # its detector's answer comes with the next picture
    assert [told("crate", number) for number in (41, 42)] == [{"crate"}] * 2
    assert told("red box. crate", 43) == {"red box"}  # by which it was seen more often


def test_a_keyframe_that_comes_after_its_object_was_retired_is_lifted_without_it(room_film) -> None:
    film, shots = room_film
    tracker = _tracker(film, every=1)
    backend = LearnedBackend(SegmentConfig(), tracker)
    phrases = _phrases(backend)
    for keyframe, _ in shots[:6]:
        backend.look(keyframe.frame_id, keyframe.rgb, phrases)
    last = shots[5][0]
    table = next(i for i, f in tracker.followed.items() if f.label == "table")
    assert table in backend._seen[last.frame_id]
    tracker.forget(table)
    labels = {track.label for track in backend.feed(last, phrases).tracks}
    assert "red box" in labels
    assert "table" not in labels


class _ShrinkingMasks(OracleMasks):
    """Shows nine pixels of each thing once `is_far`."""

    is_far = False

    def step(self, rgb):
        masks = super().step(rgb)
        if not self.is_far:
            return masks
        return {i: dataclasses.replace(m, mask=_nine_pixels(m.mask)) for i, m in masks.items()}


def _nine_pixels(mask: np.ndarray) -> np.ndarray:
    few = np.zeros_like(mask)
    few.flat[np.flatnonzero(mask)[:9]] = True
    return few


def test_an_object_too_small_to_be_lifted_is_told_once(room_film) -> None:
    film, shots = room_film
    masks = _ShrinkingMasks(film)
    backend = LearnedBackend(SegmentConfig(), _tracker(film, every=1, masks=masks))
    for keyframe, _ in shots[:6]:
        backend.feed(keyframe, _phrases(backend))
    masks.is_far = True
    again = dataclasses.replace(shots[5][0], id=99, frame_id=99)
    ids = [track.id for track in backend.feed(again, _phrases(backend)).tracks]
    assert ids
    assert len(ids) == len(set(ids))


def test_without_a_prompt_the_back_end_says_why_nothing_is_found() -> None:
    film, pictures = _moving_squares(2, 3)
    backend = LearnedBackend(SegmentConfig(), _tracker(film, names={1: "a", 2: "b"}))
    assert not backend.problem
    backend.look(0, pictures[0], ())
    assert "no prompt is set" in backend.problem
    backend.look(1, pictures[1], backend.understand("a").phrases)
    assert not backend.problem


def test_phrases_without_a_threshold_of_their_own_have_the_parameters() -> None:
    backend = LearnedBackend(SegmentConfig(prompt_threshold=0.4), _tracker(_Film()))
    answer = backend.understand("any thing at all @0.7, zebra")
    assert not answer.refused
    assert [p.threshold for p in answer.phrases] == [0.7, 0.4]


def test_a_score_that_is_none_is_refused_and_not_looked_for() -> None:
    backend = LearnedBackend(SegmentConfig(), _tracker(_Film()))
    answer = backend.understand("person @60, zebra")
    assert answer.understood == ["zebra"]
    assert answer.refused == ("person @60",)
    assert "[0, 1]" in answer.message


def test_without_a_phrase_it_says_that_nothing_will_be_found() -> None:
    backend = LearnedBackend(SegmentConfig(), _tracker(_Film()))
    assert "no prompt is set" in backend.understand(" . ").message
    assert backend.understand("zebra").message == ""


def test_what_is_less_like_its_phrase_than_that_asks_for_is_not_born() -> None:
    film, pictures = _moving_squares(2, 12)
    tracker = _tracker(film, names={1: "a", 2: "b"}, score=0.3)
    backend = LearnedBackend(SegmentConfig(), tracker)
    phrases = backend.understand("a @0.9. b @0.2").phrases
    for frame_id, rgb in enumerate(pictures):
        backend.look(frame_id, rgb, phrases)
    assert [f.label for f in tracker.followed.values()] == ["b"]
    for frame_id, rgb in enumerate(pictures, start=len(pictures)):
        backend.look(frame_id, rgb, backend.understand("a @0.9. a @0.3").phrases)
    assert sorted(f.label for f in tracker.followed.values()) == ["a", "b"]


class _NotedMasks(OracleMasks):
    """Notes each prompt, and the truth in the picture that it is for."""

    def __init__(self, truth_of) -> None:
        super().__init__(truth_of)
        self.noted = []

    def step(self, rgb):
        self.noted += [(box, box_around(self._truth_of(rgb) > 0)) for box in self._prompts.values()]
        return super().step(rgb)


@pytest.mark.parametrize("first", [0, 1])
def test_a_prompt_is_in_pixels_of_its_picture_whatever_the_size_of_those_before(first) -> None:
    """Of pictures that are by turns 320 and 1280 pixels wide the detector sees every third."""
    film, pictures = _Film(), []
    truth = np.zeros((180, 320), np.int64)
    truth[75:125, 100:175] = 1
    for scale in (1, 4):
        large = truth.repeat(scale, axis=0).repeat(scale, axis=1)
        pictures.append(np.full((*large.shape, 3), 90, np.uint8))
        film.add(pictures[-1], large)
    masks = _NotedMasks(film)
    tracker = _tracker(film, every=3, names={1: "a"}, masks=masks)
    for frame in range(first, first + 40):
        seen = tracker.step(pictures[frame % 2], {"a": 0.3})
    assert len(seen) == 1
    assert len(masks.noted) == 2  # the birth, and an anchor thirty frames later
    for prompt, box in masks.noted:
        assert prompt == pytest.approx(box)


def test_twenty_objects_are_followed_and_ids_stay_while_half_of_them_come_and_go() -> None:
    film, pictures = _moving_squares(20, 60, away=(20, 26))
    names = {n: f"thing {n}" for n in range(1, 21)}
    tracker = _tracker(film, every=3, names=names, missed=0.3, jitter=0.03, seed=1)
    held: dict[int, set[int]] = {n: set() for n in names}
    for frame, rgb in enumerate(pictures):
        masks = tracker.step(rgb, dict.fromkeys(names.values(), 0.3))
        for object_id, mask in masks.items():
            number = int(np.bincount(film(rgb)[mask.mask]).argmax())
            held[number].add(object_id)
            assert tracker.followed[object_id].label == names[number] or frame < 9
    assert len(tracker.followed) == 20
    assert all(len(ids) == 1 for ids in held.values())


def test_inventions_are_not_born_and_births_beyond_the_limit_are_counted() -> None:
    film, pictures = _moving_squares(8, 40)
    names = {n: f"thing {n}" for n in range(1, 9)}
    detector = OracleDetector(film, names, invented=0.3, seed=3)
    tracker = MaskTracker(
        OracleMasks(film), DetectionThread(detector, synchronous=True), every=2, max_objects=5
    )
    for rgb in pictures:
        tracker.step(rgb, dict.fromkeys(names.values(), 0.3))
    assert len(tracker.followed) == 5
    assert tracker.counters()["objects_refused"] > 0


def test_an_object_unseen_for_long_is_retired_and_two_with_one_mask_are_joined() -> None:
    film, pictures = _moving_squares(4, 40, away=(10, 40))
    names = {n: f"thing {n}" for n in range(1, 5)}
    tracker = _tracker(film, every=2, names=names)
    tracker._lost = 15
    for rgb in pictures[:12]:
        tracker.step(rgb, dict.fromkeys(names.values(), 0.3))
    two = sorted(i for i, f in tracker.followed.items() if f.label == "thing 2")
    twin = 77
    tracker.followed[twin] = dataclasses.replace(tracker.followed[two[0]], id=twin)
    tracker._masks.prompt(twin, box_around(film(pictures[12]) == 2))
    for rgb in pictures[12:]:
        tracker.step(rgb, dict.fromkeys(names.values(), 0.3))
    assert {f.label for f in tracker.followed.values()} == {"thing 2", "thing 4"}
    assert tracker.counters()["objects_retired"] == 2
    assert tracker.counters()["objects_joined"] == 1
    assert two[0] in tracker.followed


def test_a_slow_detector_never_holds_up_the_pictures_and_its_boxes_still_fit() -> None:
    film, pictures = _moving_squares(6, 40)
    names = {n: f"thing {n}" for n in range(1, 7)}
    release = threading.Event()

    class Slow(OracleDetector):
        def detect(self, rgb, phrases, least):
            release.wait(2.0)
            return super().detect(rgb, phrases, least)

    tracker = MaskTracker(OracleMasks(film), DetectionThread(Slow(film, names)), every=1)
    start = time.monotonic()
    for rgb in pictures[:20]:
        tracker.step(rgb, dict.fromkeys(names.values(), 0.3))
    assert time.monotonic() - start < 1.5
    release.set()
    deadline = time.monotonic() + 5.0
    following = iter(pictures[20:])
    while len(tracker.followed) < 6 and time.monotonic() < deadline:
        rgb = next(following, pictures[-1])
        masks = tracker.step(rgb, dict.fromkeys(names.values(), 0.3))
        time.sleep(0.01)
    assert len(tracker.followed) == 6
    assert tracker.counters()["detections_skipped"] > 10
    tracker.close()
    assert masks is not None


def test_a_detector_that_fails_is_told_and_objects_are_followed_on() -> None:
    film, pictures = _moving_squares(3, 30)
    names = {n: f"thing {n}" for n in range(1, 4)}

    class Breaking(OracleDetector):
        left = 4

        def detect(self, rgb, phrases, least):
            self.left -= 1
            if self.left < 0:
                raise RuntimeError("out of memory")
            return super().detect(rgb, phrases, least)

    detections = DetectionThread(Breaking(film, names), synchronous=True)
    tracker = MaskTracker(OracleMasks(film), detections, every=2)
    for rgb in pictures:
        masks = tracker.step(rgb, dict.fromkeys(names.values(), 0.3))
    assert len(masks) == 3
    assert "out of memory" in detections.problem
    backend = LearnedBackend(SegmentConfig(), tracker)
    assert backend.problem == detections.problem  # which /diagnostics says of the stage


def test_a_detector_that_failed_is_asked_again_and_only_many_failures_in_a_row_end_it() -> None:
    film, pictures = _moving_squares(1, 1)
    fails = iter([True, False, *MOST_FAULTS * [True], False, *(MOST_FAULTS + 1) * [True], False])

    class Failing(OracleDetector):
        def detect(self, rgb, phrases, least):
            if next(fails):
                raise RuntimeError("out of memory")
            return super().detect(rgb, phrases, least)

    detections = DetectionThread(Failing(film, {1: "a"}), synchronous=True)

    def found() -> int:
        detections.offer(0, pictures[0], {"a": 0.3})
        return len(detections.take())

    assert [found(), found()] == [0, 1]
    assert not detections.problem
    assert [found() for _ in range(MOST_FAULTS)] == MOST_FAULTS * [0]
    assert "asked again" in detections.problem
    assert found() == 1
    assert not detections.problem
    assert [found() for _ in range(MOST_FAULTS + 2)] == (MOST_FAULTS + 2) * [0]
    assert "no more" in detections.problem
    assert list(fails) == [False]  # nobody asked
