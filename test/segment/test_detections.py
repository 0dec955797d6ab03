# SPDX-License-Identifier: Apache-2.0
"""What becomes of the boxes that a detector finds in one picture."""

from __future__ import annotations

import numpy as np
import torch
from oracle import OracleMasks
from tiny_networks import tiny_dino

from worldsystem_segment.learned.detection_thread import DetectionThread
from worldsystem_segment.learned.detector import Found, GroundingDetector
from worldsystem_segment.learned.mask_tracker import MaskTracker


class _TwiceInOnePicture:
    """Finds a thing in its first picture alone, by two boxes that are half alike."""

    pictures = 0

    def detect(self, rgb, phrases, least) -> list[Found]:
        self.pictures += 1
        boxes = [(10.0, 10.0, 50.0, 50.0), (10.0, 10.0, 50.0, 32.0)] if self.pictures == 1 else []
        return [Found(box, "dog", 0.5, (("dog", 0.5),)) for box in boxes]


def test_two_boxes_of_one_picture_are_no_two_sightings() -> None:
    truth = np.zeros((60, 60), np.int64)
    truth[10:50, 10:50] = 1
    detections = DetectionThread(_TwiceInOnePicture(), synchronous=True)
    tracker = MaskTracker(OracleMasks(lambda rgb: truth), detections, every=1)
    for _ in range(4):
        tracker.step(np.zeros((60, 60, 3), np.uint8), {"dog": 0.3})
    assert not tracker.followed


def found_in(scores: list[dict[str, float]], boxes: list[list[float]]) -> list[Found]:
    """What is found of a dog (at 0.9 and more) and of a car (at 0.3), where the network says these
    logits of words of these boxes (centre and size, as shares of the picture)."""
    model, tokenizer = tiny_dino()
    network = GroundingDetector(model, tokenizer, short_edge=64)
    ids = network._tokens(["dog", "car"])[0][0].tolist()
    logits = torch.full((1, len(boxes), 16), -9.0)
    for box, words in enumerate(scores):
        for word, logit in words.items():
            logits[0, box, ids.index(tokenizer.convert_tokens_to_ids(word))] = logit
    network._run = lambda *_: (logits, torch.tensor([boxes]))
    detections = DetectionThread(network, synchronous=True)
    detections.offer(0, np.zeros((60, 80, 3), np.uint8), {"dog": 0.9, "car": 0.3})
    return [one for sighting in detections.take() for one in sighting.found]


def test_a_box_that_its_own_phrase_refuses_hides_none_of_another_phrase() -> None:
    boxes = [[0.5, 0.5, 0.40, 0.4], [0.5, 0.5, 0.42, 0.4]]
    assert [one.label for one in found_in([{"dog": 1.0}, {"car": 0.0}], boxes)] == ["car"]


def test_a_box_that_one_phrase_refuses_is_still_what_another_phrase_finds() -> None:
    (found,) = found_in([{"dog": 1.0, "car": 0.0}], [[0.5, 0.5, 0.4, 0.4]])
    assert (found.label, found.score) == ("car", 0.5)
    assert max(found.scores, key=lambda pair: pair[1])[0] == "car"
