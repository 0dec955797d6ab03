# SPDX-License-Identifier: Apache-2.0
"""Which objects are followed: births from detections, masks through the video, retirement.

Detections come late and rarely, masks every frame. A detection is compared with the masks of the
frame it was made in. Nothing is ever reset: unmatched objects are followed on, and what comes back
is told by the map.

Pictures may change their size at any frame, so boxes are fractions of the picture; only a prompt is
in pixels, of the picture that it is for.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from jaxtyping import Bool, Float64, UInt8
from scipy.optimize import linear_sum_assignment

from worldsystem_segment.learned.detection_thread import DetectionThread, Sighting
from worldsystem_segment.learned.detector import Found, box_iou, scaled_box
from worldsystem_segment.learned.mask_sessions import Box, ObjectMask

SAME, INSIDE = 0.3, 0.6  # IoU with a live object, and share inside one, that refuse a birth
ANCHOR_SCORE, ANCHOR_IOU = 0.6, 0.8  # a sure detection of what is already well followed
ANCHOR_EVERY = 30  # frames between two anchors of one object
BIRTH_SIGHTINGS, BIRTH_WINDOW = 2, 3
KEPT_FRAMES = 64
OVERLAPPING = 0.85  # IoU at which two followed objects are one


class Masks(Protocol):
    """What follows objects by their masks: `MaskSessions`, or a test's own."""

    ids: set[int]
    frame: int

    def prompt(self, object_id: int, where: Box | Bool[np.ndarray, "h w"]) -> None: ...
    def remove(self, object_id: int) -> None: ...
    def step(self, rgb: UInt8[np.ndarray, "h w 3"]) -> dict[int, ObjectMask]: ...


@dataclass
class Followed:
    """One object that is followed: its votes, and how long it has not been there."""

    id: int
    born: int
    votes: Counter[str] = field(default_factory=Counter)
    best: float = 0.0
    sightings: int = 1
    unseen: int = 0  # frames
    missed: int = 0  # detections of the whole picture that did not show it
    anchored: int = 0

    @property
    def label(self) -> str:
        return self.votes.most_common(1)[0][0]


@dataclass
class _Candidate:
    found: Found
    frames: list[int]


class MaskTracker:
    """Follows at most `max_objects`; not thread-safe."""

    def __init__(
        self,
        masks: Masks,
        detections: DetectionThread,
        *,
        every: int = 10,
        max_objects: int = 20,
        lost_frames: int = 150,
        new_id: Callable[[], int] | None = None,
    ) -> None:
        self._masks, self._detections = masks, detections
        self._every, self._max, self._lost = every, max_objects, lost_frames
        self._take_id = new_id or self._count
        self._last_id = 0
        self._boxes: OrderedDict[int, dict[int, Box]] = OrderedDict()
        self._next_px = (1, 1)  # width and height of the picture that prompts are for
        self._candidates: list[_Candidate] = []
        self.followed: dict[int, Followed] = {}
        self.retired = self.refused = self.joined = 0

    def step(
        self, rgb: UInt8[np.ndarray, "h w 3"], phrases: Mapping[str, float]
    ) -> dict[int, ObjectMask]:
        """Masks of the followed objects that are there, in the next picture of the video.

        `phrases` are what is looked for, each with its least score.
        """
        self._next_px = (rgb.shape[1], rgb.shape[0])
        for sighting in self._detections.take():
            self._weigh(sighting, phrases)
        masks = self._masks.step(rgb)
        frame = self._masks.frame
        if phrases and frame % self._every == 0:
            self._detections.offer(frame, rgb, phrases)
        self._boxes[frame] = {i: box for i, m in masks.items() if (box := mask_box(m)) is not None}
        while len(self._boxes) > KEPT_FRAMES:
            self._boxes.popitem(last=False)
        for object_id in list(self.followed):
            self._age(object_id, masks.get(object_id))
        self._join(masks)
        return {i: m for i, m in masks.items() if i in self.followed and m.area_px}

    def forget(self, object_id: int) -> None:
        """Stop following one object."""
        self._masks.remove(object_id)
        if self.followed.pop(object_id, None):
            self.retired += 1

    @property
    def problem(self) -> str:
        """Why nothing new is looked for any more; empty while it is."""
        return self._detections.problem

    def close(self) -> None:
        """End the detector's thread."""
        self._detections.close()

    def counters(self) -> dict[str, int]:
        """What was let go and why."""
        return {
            "objects_retired": self.retired,
            "objects_refused": self.refused,
            "objects_joined": self.joined,
            "detections_skipped": self._detections.skipped,
        }

    def _count(self) -> int:
        self._last_id += 1
        return self._last_id

    def _weigh(self, sighting: Sighting, phrases: Collection[str]) -> None:
        """Match a sighting with where the objects were in its picture."""
        boxes = self._boxes.get(sighting.frame, {})
        ids = [i for i in boxes if i in self.followed]
        overlap = np.array(
            [[box_iou(found.box, boxes[i]) for i in ids] for found in sighting.found]
        ).reshape(len(sighting.found), len(ids))
        matched = _pairs(overlap)
        for row, found in enumerate(sighting.found):
            if row in matched:
                self._vote(self.followed[ids[matched[row]]], found, phrases)
                self._confirm(self.followed[ids[matched[row]]], found, float(overlap[row].max()))
        seen = {ids[column] for column in matched.values()}
        for object_id in set(ids) - seen:
            self.followed[object_id].missed += 1
        for row, found in enumerate(sighting.found):
            if row not in matched and not self._covered(found, [boxes[i] for i in ids]):
                self._propose(found, sighting.frame, phrases)
        self._candidates = [
            c for c in self._candidates
            if sighting.frame - c.frames[-1] <= BIRTH_WINDOW * self._every
        ]  # fmt: skip

    def _vote(self, followed: Followed, found: Found, phrases: Collection[str]) -> None:
        """Count what it was found as; what it was found as before counts while that is asked for.

        One that is found by a prompt of before tells nothing of what is asked for now.
        """
        if found.label in phrases:
            asked = {label: votes for label, votes in followed.votes.items() if label in phrases}
            followed.votes = Counter(asked)
            followed.votes.update(dict(found.scores))

    def _confirm(self, followed: Followed, found: Found, overlap: float) -> None:
        followed.best = max(followed.best, found.score)
        followed.sightings += 1
        followed.missed = 0
        sure = found.score >= ANCHOR_SCORE and overlap >= ANCHOR_IOU
        if sure and self._masks.frame - followed.anchored >= ANCHOR_EVERY:
            followed.anchored = self._masks.frame + 1
            # the anchor is where the mask is now: the detection is of an older picture
            box = next(reversed(self._boxes.values()), {}).get(followed.id)
            if box is not None:
                self._prompt(followed.id, box)

    def _covered(self, found: Found, boxes: list[Box]) -> bool:
        return any(
            box_iou(found.box, box) > SAME or _inside(found.box, box) > INSIDE for box in boxes
        )

    def _propose(self, found: Found, frame: int, phrases: Collection[str]) -> None:
        """A birth needs two sightings of the last three: one is often wrong."""
        for candidate in self._candidates:
            if box_iou(candidate.found.box, found.box) > SAME:
                if candidate.frames[-1] == frame:
                    return  # a less likely box in the same picture is no second sighting
                candidate.frames.append(frame)
                candidate.found = found
                break
        else:
            candidate = _Candidate(found, [frame])
            self._candidates.append(candidate)
        if len(candidate.frames) >= BIRTH_SIGHTINGS:
            self._candidates.remove(candidate)
            self._bear(found, phrases)

    def _make_room(self, phrases: Collection[str]) -> None:
        """Of what is followed and not asked for any more, the one longest unseen makes way."""
        unasked = [f for f in self.followed.values() if f.label not in phrases]
        if unasked:
            self.forget(max(unasked, key=lambda f: (f.unseen, f.missed)).id)

    def _bear(self, found: Found, phrases: Collection[str]) -> None:
        if len(self.followed) >= self._max and found.label in phrases:
            self._make_room(phrases)
        object_id = self._take_id() if len(self.followed) < self._max else 0
        if not object_id:
            self.refused += 1
            return
        votes = Counter(dict(found.scores))
        born = self._masks.frame + 1
        self.followed[object_id] = Followed(object_id, born, votes, found.score, anchored=born)
        self._prompt(object_id, found.box)

    def _prompt(self, object_id: int, box: Box) -> None:
        self._masks.prompt(object_id, scaled_box(box, *self._next_px))

    def _age(self, object_id: int, mask: ObjectMask | None) -> None:
        followed = self.followed[object_id]
        there = mask is not None and mask.area_px > 0
        followed.unseen = 0 if there else followed.unseen + 1
        if followed.unseen > self._lost or followed.missed > max(5, 3 * followed.sightings):
            self.forget(object_id)

    def _join(self, masks: dict[int, ObjectMask]) -> None:
        """Two objects with one mask are one: the older id stays."""
        there = sorted(i for i, m in masks.items() if i in self.followed and m.area_px)
        boxes = next(reversed(self._boxes.values()))
        for index, older in enumerate(there):
            for younger in there[index + 1 :]:
                if younger not in self.followed or older not in self.followed:
                    continue
                if box_iou(boxes[older], boxes[younger]) < OVERLAPPING:
                    continue
                a, b = masks[older].mask, masks[younger].mask
                if (a & b).sum() > OVERLAPPING * (a | b).sum():
                    self.followed[older].votes += self.followed[younger].votes
                    self._masks.remove(younger)
                    del self.followed[younger]
                    self.joined += 1


def mask_box(mask: ObjectMask) -> Box | None:
    """The box around a mask, as fractions of its picture; None around nothing."""
    rows, columns = np.flatnonzero(mask.mask.any(axis=1)), np.flatnonzero(mask.mask.any(axis=0))
    if not len(rows):
        return None
    box = float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)
    height, width = mask.mask.shape
    return scaled_box(box, 1 / width, 1 / height)


def _pairs(overlap: Float64[np.ndarray, "d t"]) -> dict[int, int]:
    rows, columns = linear_sum_assignment(-overlap)
    return {int(r): int(c) for r, c in zip(rows, columns, strict=True) if overlap[r, c] > SAME}


def _inside(box: Box, other: Box) -> float:
    across = max(0.0, min(box[2], other[2]) - max(box[0], other[0]))
    down = max(0.0, min(box[3], other[3]) - max(box[1], other[1]))
    return across * down / max((box[2] - box[0]) * (box[3] - box[1]), 1e-9)
