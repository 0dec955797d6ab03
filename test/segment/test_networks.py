# SPDX-License-Identifier: Apache-2.0
"""The real network classes, tiny and random: sessions, forgetting, shared features, phrases."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_networks import tiny_dino, tiny_sam2, tiny_sam3

from worldsystem_segment.learned import detector, mask_sessions
from worldsystem_segment.learned.detector import GroundingDetector, phrase_scores
from worldsystem_segment.learned.mask_sessions import MaskSessions
from worldsystem_segment.learned.pixels import SAM2_MEAN, SAM2_STD, dino_pixels, square_pixels
from worldsystem_segment.learned.pruning import held_tensors, prune
from worldsystem_segment.learned.sam3_tracker import Sam3Tracker, nms_masks

BOXES = {1: (4, 4, 30, 40), 2: (20, 10, 60, 44), 3: (30, 2, 50, 30)}


@pytest.fixture(scope="module")
def sam2():
    return tiny_sam2()


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def _sessions(model, forget=prune, one_by_one=False) -> MaskSessions:
    from transformers import Sam2VideoInferenceSession

    return MaskSessions(model, Sam2VideoInferenceSession, forget, one_by_one=one_by_one)


def _picture(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 255, (48, 64, 3), np.uint8)


def _logits(monkeypatch) -> list:
    """Every object's raw logits, as they come."""
    raw = []
    plain = mask_sessions._object_masks

    def kept(logits, shape):
        raw.extend((one.mask.clone(), one.presence.clone()) for one in logits.values())
        return plain(logits, shape)

    monkeypatch.setattr(mask_sessions, "_object_masks", kept)
    return raw


def _film(sessions, frames: int, begin: dict[int, int], end: dict[int, int]) -> dict:
    masks = {}
    for frame in range(frames):
        for object_id, first in begin.items():
            if first == frame:
                sessions.prompt(object_id, BOXES[object_id])
        for object_id, last in end.items():
            if last == frame:
                sessions.remove(object_id)
        for object_id, mask in sessions.step(_picture(frame)).items():
            masks[frame, object_id] = mask.presence
    return masks


def test_forgetting_changes_no_bit_of_any_later_mask(sam2, monkeypatch) -> None:
    begin = {1: 0, 2: 3}
    raw = _logits(monkeypatch)
    _film(_sessions(sam2), 26, begin, {})
    pruned = raw.copy()
    raw.clear()
    _film(_sessions(sam2, lambda *_: None), 26, begin, {})
    assert len(raw) == len(pruned) == 26 + 23
    for (mask, presence), (mask_pruned, presence_pruned) in zip(raw, pruned, strict=True):
        assert torch.equal(mask, mask_pruned)
        assert torch.equal(presence, presence_pruned)


def test_objects_come_and_go_at_any_frame_without_the_others_noticing(sam2) -> None:
    # bit by bit one by one; together sums are taken in another order (test_batched_masks.py)
    alone = _film(_sessions(sam2, one_by_one=True), 10, {1: 0}, {})
    among = _film(_sessions(sam2, one_by_one=True), 10, {1: 0, 2: 2, 3: 4}, {2: 6, 3: 8})
    assert {k: v for k, v in among.items() if k[1] == 1} == alone
    assert {k[0] for k in among if k[1] == 2} == {2, 3, 4, 5}
    assert {k[0] for k in among if k[1] == 3} == {4, 5, 6, 7}


def test_the_encoder_runs_once_a_frame_however_many_objects(sam2) -> None:
    sessions, calls = _sessions(sam2), []
    handle = sam2.vision_encoder.register_forward_hook(lambda *_: calls.append(1))
    _film(sessions, 5, {1: 0, 2: 0, 3: 1}, {})
    handle.remove()
    assert len(calls) == sessions.encoder_runs == 5


def test_sharing_features_gives_what_an_encoder_of_its_own_would(sam2) -> None:
    together = _film(_sessions(sam2, one_by_one=True), 4, {1: 0, 2: 0}, {})
    alone = _film(_sessions(sam2, one_by_one=True), 4, {2: 0}, {})
    assert {k: v for k, v in together.items() if k[1] == 2} == alone


def test_memory_is_flat_once_the_first_frames_are_over(sam2) -> None:
    sessions, held = _sessions(sam2), []
    sessions.prompt(1, BOXES[1])
    for frame in range(40):
        if frame % 10 == 5:
            sessions.prompt(1, BOXES[1])  # anchors are bounded, too
        sessions.step(_picture(frame))
        held.append(sum(held_tensors(s) for s in sessions.sessions().values()))
    assert held[39] <= held[29]
    assert len(sessions.sessions()[1].output_dict_per_obj[0]["cond_frame_outputs"]) == 4


def test_without_objects_no_network_runs_and_frames_are_counted_on(sam2) -> None:
    sessions = _sessions(sam2)
    for frame in range(3):
        assert sessions.step(_picture(frame)) == {}
    sessions.prompt(5, np.ones((48, 64), bool))  # a mask may be given instead of a box
    assert set(sessions.step(_picture(3))) == {5}
    assert sessions.encoder_runs == 1
    assert sessions.frame == 3


@pytest.mark.parametrize("one_by_one", [False, True])
def test_an_error_costs_the_picture_and_the_objects_that_were_new_in_it(
    sam2, one_by_one, monkeypatch
) -> None:
    sessions = _sessions(sam2, one_by_one=one_by_one)
    _film(sessions, 3, {1: 0}, {})
    for number in (2, 3):
        sessions.prompt(number, BOXES[number])
    with monkeypatch.context() as patch:
        patch.setattr(sam2, "_single_frame_forward", _out_of_memory)
        with pytest.raises(torch.OutOfMemoryError):
            sessions.step(_picture(3))
    assert sessions.ids == {1}
    sessions.prompt(2, BOXES[2])
    assert set(sessions.step(_picture(4))) == set(sessions.step(_picture(5))) == {1, 2}


def _out_of_memory(*_, **__):
    raise torch.OutOfMemoryError("CUDA out of memory")


@pytest.mark.slow
def test_two_thousand_frames_with_objects_coming_and_going_hold_no_more_than_fifty(sam2) -> None:
    sessions, held = _sessions(sam2), []
    for frame in range(2000):
        if frame % 40 == 0:
            sessions.remove(frame // 40 - 2)
            sessions.prompt(frame // 40, BOXES[1 + frame // 40 % 3])
        sessions.step(_picture(frame % 50))
        if frame % 50 == 49:
            held.append(sum(held_tensors(s) for s in sessions.sessions().values()))
    assert len(sessions) == 2
    assert max(held[2:]) <= 1.05 * max(held[:4])


@pytest.mark.slow
def test_twenty_objects_are_followed_at_once(sam2) -> None:
    sessions = _sessions(sam2)
    for number in range(20):
        sessions.prompt(number, (number, number, number + 24, number + 24))
    for frame in range(20):
        assert set(sessions.step(_picture(frame))) == set(range(20))
    assert sessions.encoder_runs == 20


def test_a_phrases_score_is_the_best_of_its_own_tokens() -> None:
    #         [CLS] red   car   .     person .    [SEP] pad
    tokens = [101, 1100, 1102, 1012, 1103, 1012, 102, 0]
    logits = torch.full((1, 8), -9.0)
    logits[0, 2], logits[0, 4], logits[0, 3] = 0.0, 2.0, 9.0
    scores = phrase_scores(logits, torch.tensor(tokens), 2)
    assert torch.allclose(scores, torch.sigmoid(torch.tensor([[0.0, 2.0]])))


@pytest.mark.parametrize("first", ["car", "car.", "2.5 car", "car? red", "?", ""])
def test_no_phrase_takes_the_place_of_the_next_one(first) -> None:
    model, tokenizer = tiny_dino()
    ids = GroundingDetector(model, tokenizer)._tokens([first, "dog"])[0][0]
    logits = torch.full((1, 16), -9.0)
    logits[0, ids.tolist().index(tokenizer.convert_tokens_to_ids("dog"))] = 2.0
    assert phrase_scores(logits, ids, 2)[0].argmax() == 1


def test_every_box_has_exactly_one_of_the_phrases_however_many_passes_it_takes() -> None:
    model, tokenizer = tiny_dino()
    network = GroundingDetector(model, tokenizer, short_edge=64)
    phrases = ["red car", "person", "chair", "dog", "blue table", "lamp", "red lamp"]
    assert len(network._chunks(phrases)) > 1
    picture = np.random.default_rng(0).integers(0, 255, (60, 80, 3), np.uint8)
    found = network.detect(picture, phrases, 0.0)
    assert found
    for thing in found:
        assert thing.label in phrases
        assert [p for p, _ in thing.scores] == phrases
        assert thing.score == max(s for _, s in thing.scores)
        x0, y0, x1, y1 = thing.box
        assert 0 <= x0 < x1 <= 80
        assert 0 <= y0 < y1 <= 60
    assert network.detect(picture, phrases, 1.1) == []
    assert network.detect(picture, [], 0.0) == []


def test_of_boxes_that_overlap_the_best_stays() -> None:
    """Against the obvious way: best first, each kept that overlaps none of those kept before."""
    random = np.random.default_rng(3)
    corners = random.uniform(0, 300, (300, 2))
    boxes = np.hstack([corners, corners + random.uniform(1, 90, (300, 2))])
    scores = random.uniform(0, 1, (300, 2))
    expected: list[tuple[float, ...]] = []
    for query in np.argsort(-scores.max(axis=1)):
        box = tuple(boxes[query].tolist())
        wide_enough = box[2] - box[0] >= 2 and box[3] - box[1] >= 2
        apart = all(detector.box_iou(box, other) < detector.OVERLAP for other in expected)
        if scores[query].max() >= 0.4 and wide_enough and apart:
            expected.append(box)
    found = detector._kept(boxes, scores, ("car", "dog"), 0.4)
    assert 100 < len(found) < 300 * (1 - 0.4**2)
    assert [thing.box for thing in found] == expected


def test_pictures_become_pixels_of_the_networks_size_and_range() -> None:
    grey = np.full((30, 40, 3), 128, np.uint8)
    pixels = square_pixels(grey, 16, SAM2_MEAN, SAM2_STD)
    assert pixels.shape == (1, 3, 16, 16)
    expected = (128 / 255 - torch.tensor(SAM2_MEAN)) / torch.tensor(SAM2_STD)
    assert torch.allclose(pixels[0, :, 5, 5], expected)
    assert dino_pixels(np.zeros((480, 640, 3), np.uint8)).shape == (1, 3, 800, 1067)
    assert dino_pixels(np.zeros((100, 1000, 3), np.uint8)).shape == (1, 3, 133, 1333)


def _sam3(max_objects: int = 4) -> Sam3Tracker:
    from transformers import Sam3VideoInferenceSession

    def tokens(text: str):
        letters = [3 + ord(c) % 60 for c in text][:30]
        ids = torch.tensor([[1, *letters, *[2] * (31 - len(letters))]])
        return ids, torch.ones(1, 32, dtype=torch.long)

    return Sam3Tracker(tiny_sam3(), Sam3VideoInferenceSession, tokens, max_objects)


def _sam3_film(tracker: Sam3Tracker, frames: int) -> list:
    told = []
    for frame in range(frames):
        phrases = {"red car": 0.0} if frame < 4 else {"red car": 0.0, "dog": 0.0}
        masks = tracker.step(_picture(frame), phrases)
        told.append({i: (m.area_px, m.presence) for i, m in masks.items()})
    return told


def test_sam3_forgets_without_any_change_and_takes_new_phrases_on_the_way(monkeypatch) -> None:
    pruned = _sam3_film(_sam3(), 20)
    monkeypatch.setattr(Sam3Tracker, "_forget", lambda *_: None)
    assert _sam3_film(_sam3(), 20) == pruned
    assert len(pruned[-1]) > len(pruned[3]) > 0


def test_sam3_takes_each_phrase_by_its_own_least_score() -> None:
    """A phrase that nothing is like enough changes nothing for the others."""
    alone, beside = _sam3(max_objects=30), _sam3(max_objects=30)
    for frame in range(2):
        expected = alone.step(_picture(frame), {"red car": 0.0})
        found = beside.step(_picture(frame), {"red car": 0.0, "dog": 1.0})
        assert {i: m.area_px for i, m in found.items()} == {
            i: m.area_px for i, m in expected.items()
        }
    assert {f.label for f in beside.followed.values()} == {"red car"}
    beside.step(_picture(2), {"red car": 0.0, "dog": 0.0})
    assert {f.label for f in beside.followed.values()} == {"red car", "dog"}


def test_sam3_takes_a_new_thing_by_that_score_also_beside_what_it_follows() -> None:
    tracker = _sam3(max_objects=30)
    tracker._model.new_det_thresh = 0.7  # as published; random weights score 0.25
    tracker.step(_picture(0), {"red car": 0.1})
    assert {f.label for f in tracker.followed.values()} == {"red car"}
    tracker.step(_picture(1), {"red car": 0.1, "dog": 0.1})
    assert {f.label for f in tracker.followed.values()} == {"red car", "dog"}


def test_sam3_makes_room_for_new_things_when_those_of_before_are_out_of_view(monkeypatch) -> None:
    tracker = _sam3(max_objects=1)
    tracker._lost = 3
    propagate = tracker._model.run_tracker_propagation

    def out_of_view(**given):
        masks, presence = propagate(**given)
        return torch.full_like(masks, -1024.0), torch.full_like(presence, -10.0)

    monkeypatch.setattr(tracker._model, "run_tracker_propagation", out_of_view)
    tracker.step(_picture(0), {"red car": 0.0})
    before = set(tracker.followed)
    assert len(before) == 1
    for frame in range(1, 7):
        tracker.step(_picture(frame), {"red car": 0.0})
    assert tracker.followed
    assert not before & set(tracker.followed)


def test_sam3_finds_everything_anew_after_an_error_and_gives_no_id_twice(monkeypatch) -> None:
    tracker = _sam3(max_objects=30)
    before = set(tracker.step(_picture(0), {"red car": 0.0}))
    add = tracker._model._tracker_add_new_objects

    def half_added(*arguments, **named):
        with monkeypatch.context() as within:
            within.setattr(tracker._model.tracker_model, "forward", _out_of_memory)
            add(*arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(tracker._model, "_tracker_add_new_objects", half_added)
        with pytest.raises(torch.OutOfMemoryError):
            tracker.step(_picture(1), {"red car": 0.0, "dog": 0.0})
    assert not tracker.followed
    for frame in (2, 3):
        after = set(tracker.step(_picture(frame), {"red car": 0.0, "dog": 0.0}))
        assert after
        assert not after & before
    assert {f.label for f in tracker.followed.values()} == {"red car", "dog"}


@pytest.mark.slow
def test_sam3_holds_a_bounded_memory_and_drops_objects_with_their_phrase() -> None:
    tracker, held = _sam3(), []
    for frame in range(28):
        tracker.step(_picture(frame), {"red car": 0.0, "dog": 0.0})
        held.append(held_tensors(tracker._session))
    assert held[27] <= 1.02 * held[21]
    labels = {f.label for f in tracker.followed.values()}
    tracker.step(_picture(28), {"dog": 0.0})
    assert {f.label for f in tracker.followed.values()} == labels - {"red car"}
    tracker.step(_picture(29), {"dog": 0.0, "lamp": 0.0})
    concepts = tracker._session.prompts
    assert sorted(concepts.values()) == ["dog", "lamp"]
    assert len(set(concepts)) == 2
    assert min(concepts) > 0  # an id is never given twice


def test_duplicates_are_suppressed_without_the_librarys_kernels() -> None:
    masks = torch.zeros(4, 8, 8)
    masks[0, :4], masks[1, :4], masks[2, 4:], masks[3, 4:] = 1, 1, 1, 1
    scores = torch.tensor([0.6, 0.9, 0.8, 0.1])
    assert nms_masks(scores, masks, 0.5, 0.1).tolist() == [False, True, True, False]
    assert nms_masks(scores, masks, 0.95, 0.1).sum() == 0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device")
def test_masks_on_cuda_are_those_of_the_cpu() -> None:
    on_cpu, on_cuda = _sessions(tiny_sam2()), _sessions(tiny_sam2().to("cuda"))
    for sessions in (on_cpu, on_cuda):
        sessions.prompt(1, BOXES[1])
    for frame in range(6):
        a, b = on_cpu.step(_picture(frame))[1], on_cuda.step(_picture(frame))[1]
        assert abs(a.presence - b.presence) < 1e-2  # TF32 and other orders of summing
        assert (a.mask != b.mask).mean() < 0.02


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device")
def test_a_detector_that_is_replayed_finds_what_the_plain_network_finds(caplog) -> None:
    model, tokenizer = tiny_dino()
    replayed, plain = (GroundingDetector(model.to("cuda"), tokenizer, 64) for _ in range(2))
    plain._run = plain._compute
    for seed, phrases in enumerate([("red car", "dog"), ("dog",), ("red car", "dog")]):
        picture = np.random.default_rng(seed).integers(0, 255, (60, 80, 3), np.uint8)
        again, once = (network.detect(picture, phrases, 0.0) for network in (replayed, plain))
        assert [thing.label for thing in again] == [thing.label for thing in once]
        np.testing.assert_allclose(
            [thing.box for thing in again], [thing.box for thing in once], atol=0.05
        )
    assert len(replayed._run._recordings) == 2
    assert "cannot be recorded" not in caplog.text
