# SPDX-License-Identifier: Apache-2.0
"""Objects of the map are asked for: in words, nearest first, and by thresholds."""

from __future__ import annotations

import numpy as np
import pytest
from segment_scenes import ROOM_EYE, room

from worldsystem_core.errors import PromptError
from worldsystem_core.objects import MapObject
from worldsystem_segment.query import query
from worldsystem_segment.segmenter import Segmenter

AHEAD = (0.0, 1.5, 0.3)


def _thing(number: int, label: str, x: float, size: float = 0.5, **given) -> MapObject:
    place = np.eye(4)
    place[0, 3] = x
    known = {"score": 0.9, "point_count": 9, "last_seen_ns": 0}
    return MapObject(
        id=number, label=label, world_from_box=place, size=np.ones(3) * size, **known, **given
    )


THINGS = (
    _thing(1, "red chair", 1.0, first_seen_ns=5),
    _thing(2, "blue chair", 4.0, first_seen_ns=9),
    _thing(
        3, "table", 2.0, 1.0, candidates=(("table", 0.6), ("desk", 0.4)), identity="an oak desk"
    ),
)


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("chairs", [1, 2]),
        ("the blue chair", [2]),
        ("nearest chair", [1, 2]),
        ("desk", [3]),
        ("farthest chair", [2, 1]),
        ("newest", [2, 1, 3]),
        ("oak", [3]),
        ("zebra", []),
        ("moving chair", []),
        ("which objects are like a table", [3]),
        ("largest", [3, 1, 2]),
        ("smallest", [1, 2, 3]),
    ],
)
def test_a_query_finds_what_every_word_is_said_of(text, ids) -> None:
    assert [f.thing.id for f in query(THINGS, text, np.zeros(3)).found] == ids


def test_a_query_says_what_there_is_instead_and_what_it_needs() -> None:
    assert "red chair" in query(THINGS, "zebra").message
    assert "place" in query(THINGS, "nearest chair").message
    assert "one of them" in query(THINGS, "nearest largest chair").message
    assert "no object is known" in query((), "chair").message
    (found,) = query(THINGS, "nearest chair", np.zeros(3), limit=1).found
    assert found.distance == pytest.approx(0.75)  # to the surface of a half-metre box


def test_thresholds_come_in_the_text_or_beside_it() -> None:
    segmenter = Segmenter()
    answer = segmenter.set_prompt("red box @0.9. ball")
    assert [p.threshold for p in answer.phrases] == [0.9, 0.0]
    for k in range(4):
        frame = segmenter.feed(room().caster().shot(k, ROOM_EYE, AHEAD)[0])
    assert {t.label.split()[-1] for t in frame.tracks} == {"ball"}
    answer = segmenter.set_prompt("red box, ball", thresholds=[0.1, 0.99])
    assert {o.label for o in segmenter.objects(0).objects} == {"red box"}  # four sightings: 0.8
    with pytest.raises(PromptError, match="one for each"):
        segmenter.set_prompt("ball", thresholds=[0.1, 0.2])
    with pytest.raises(PromptError, match=r"\[0, 1\]"):
        segmenter.set_prompt("ball", thresholds=[1.5])


def test_a_saved_map_does_not_hold_what_drove_off_where_it_was(tmp_path) -> None:
    segmenter, again = Segmenter(), Segmenter()
    caster = room().caster()
    for k in range(4):
        segmenter.feed(caster.shot(k, ROOM_EYE, AHEAD)[0])
    gone = min(found.thing.id for found in segmenter.query("").found)
    track = segmenter._backend.map.tracker.tracks[gone]
    track.moving, track.motion = True, 1.0  # slower than what begins to move
    track.empty_views = segmenter.config.vanish_keyframes
    live = {found.thing.id for found in segmenter.query("").found}
    assert live
    assert gone not in live
    segmenter.save(tmp_path)
    again.load(tmp_path)
    assert {found.thing.id for found in again.query("").found} == live
    assert again._backend.map.tracker.tracks[gone].moving, "it has its id when it comes back"
