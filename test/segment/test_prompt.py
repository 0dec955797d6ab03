# SPDX-License-Identifier: Apache-2.0
"""The grammar of prompts: what is understood, what is refused, what is never guessed."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from worldsystem_core.frames import Frame
from worldsystem_segment.backend import BACKENDS
from worldsystem_segment.config import SegmentConfig
from worldsystem_segment.learned.backend import LearnedBackend
from worldsystem_segment.prompt import (
    COLOURS,
    NOUNS,
    SIZES,
    STATES,
    Description,
    Phrase,
    parse_prompt,
    selects,
)
from worldsystem_segment.segmenter import Segmenter

RED_BOX = Description(colour="red", size="small", state="static", noun="box")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("red box", Phrase("red box", colour="red", noun="box")),
        ("The big gray sphere", Phrase("", colour="grey", size="large", noun="ball")),
        ("boxes", Phrase("", noun="box")),
        ("moving objects", Phrase("", state="moving")),
        ("blue", Phrase("", colour="blue")),
        ("tag:12", Phrase("", noun="tag", tag=12)),
    ],
)
def test_a_phrase_of_known_words_is_understood(text, expected) -> None:
    answer = parse_prompt(text)
    assert not answer.refused
    assert not answer.message
    (phrase,) = answer.phrases
    assert (phrase.colour, phrase.size, phrase.state, phrase.noun, phrase.tag) == (
        expected.colour, expected.size, expected.state, expected.noun, expected.tag,
    )  # fmt: skip


@pytest.mark.parametrize(
    "text",
    ["zebra", "red zebra", "red blue box", "box ball", "the", "tag:x", "tag:" + "9" * 5000],
    ids=lambda text: text[:12],
)
def test_a_phrase_with_any_other_word_is_refused_as_a_whole(text) -> None:
    answer = parse_prompt(text)
    assert answer.phrases == ()
    assert answer.refused == (text,)
    assert text in answer.message
    assert all(w in answer.message for w in (*COLOURS, *SIZES, *STATES, *NOUNS))


def test_phrases_are_split_at_stops_commas_and_words() -> None:
    answer = parse_prompt("red box. ball, zebra; wall and small cylinder.")
    assert answer.understood == ["red box", "ball", "wall", "small cylinder"]
    assert answer.refused == ("zebra",)


def test_an_empty_prompt_is_neither_understood_nor_refused() -> None:
    answer = parse_prompt("  . ")
    assert answer.phrases == ()
    assert answer.refused == ()


@pytest.mark.parametrize(
    ("text", "selected"),
    [
        ("red box", True), ("box", True), ("small object", True), ("static red", True),
        ("large box", False), ("moving box", False), ("ball", False), ("tag", False),
        ("floor", False),
    ],
)  # fmt: skip
def test_an_object_is_selected_when_every_word_is_true_of_it(text, selected) -> None:
    (phrase,) = parse_prompt(text).phrases
    assert selects(phrase, RED_BOX) is selected


def test_structure_comes_only_when_named() -> None:
    floor = Description(colour="", size="", state="static", noun="floor")
    assert not selects(Phrase("object"), floor)
    assert selects(Phrase("ground", noun="floor"), floor)


def test_tags_are_selected_by_their_number() -> None:
    tagged = Description("grey", "", "static", "box", frozenset({7}))
    assert tagged.label == "grey box tag:7"
    assert selects(Phrase("tag", noun="tag"), tagged)
    assert selects(Phrase("tag:7", noun="tag", tag=7), tagged)
    assert not selects(Phrase("tag:8", noun="tag", tag=8), tagged)


def test_a_prompt_refused_as_a_whole_leaves_the_one_before_in_force() -> None:
    segmenter = Segmenter()
    assert segmenter.set_prompt("ball").understood == ["ball"]
    assert segmenter.set_prompt("zebra").refused == ("zebra",)
    assert [phrase.text for phrase in segmenter.phrases] == ["ball"]


def test_a_first_prompt_that_networks_refuse_is_told_while_nothing_is_found(monkeypatch) -> None:
    idle = SimpleNamespace(followed={}, problem="", step=lambda rgb, phrases: {})
    monkeypatch.setitem(BACKENDS, "sam3", lambda config: LearnedBackend(config, idle))
    segmenter = Segmenter(SegmentConfig(backend="sam3", prompt="person @60"))
    rgb = np.zeros((48, 64, 3), np.uint8)
    segmenter.look(Frame(id=0, stamp_ns=0, rgb=rgb))
    assert "not understood: person @60" in segmenter.problem
    segmenter.set_prompt("person")
    segmenter.look(Frame(id=1, stamp_ns=1, rgb=rgb))
    assert segmenter.problem == ""
