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


def test_a_box_that_its_own_phrase_refuses_hides_none_of_another_phrase() -> None:
    model, tokenizer = tiny_dino()
    network = GroundingDetector(model, tokenizer, short_edge=64)
    ids = network._tokens(["dog", "car"])[0][0].tolist()
    dog, car = (ids.index(tokenizer.convert_tokens_to_ids(word)) for word in ("dog", "car"))
    logits = torch.full((1, 2, 16), -9.0)
    logits[0, 0, dog], logits[0, 1, car] = 1.0, 0.0
    boxes = torch.tensor([[[0.5, 0.5, 0.40, 0.4], [0.5, 0.5, 0.42, 0.4]]])
    network._run = lambda *_: (logits, boxes)
    detections = DetectionThread(network, synchronous=True)
    detections.offer(0, np.zeros((60, 80, 3), np.uint8), {"dog": 0.9, "car": 0.3})
    assert [one.label for sighting in detections.take() for one in sighting.found] == ["car"]


def test_a_box_that_one_phrase_refuses_is_still_what_another_phrase_finds() -> None:
    model, tokenizer = tiny_dino()
    network = GroundingDetector(model, tokenizer, short_edge=64)
    ids = network._tokens(["dog", "car"])[0][0].tolist()
    dog, car = (ids.index(tokenizer.convert_tokens_to_ids(word)) for word in ("dog", "car"))
    logits = torch.full((1, 1, 16), -9.0)
    logits[0, 0, dog], logits[0, 0, car] = 1.0, 0.0
    network._run = lambda *_: (logits, torch.tensor([[[0.5, 0.5, 0.4, 0.4]]]))
    detections = DetectionThread(network, synchronous=True)
    detections.offer(0, np.zeros((60, 80, 3), np.uint8), {"dog": 0.9, "car": 0.3})
    ((found,),) = [sighting.found for sighting in detections.take()]
    assert (found.label, found.score) == ("car", 0.5)
    assert max(found.scores, key=lambda pair: pair[1])[0] == "car"
