# SPDX-License-Identifier: Apache-2.0
"""What an identify service answers, and what people ask for in words."""

from __future__ import annotations

from http_answer import URL, every_server_answers

from worldsystem_segment.identify.client import MAX_ANSWER_CHARACTERS, IdentifyError, Service, ask
from worldsystem_segment.prompt import Description, parse_prompt, selects
from worldsystem_segment.query import query

_SERVICES = Service(URL, key="secret"), Service(URL, style="multipart")
_BOX = Description("red", "small", "static", "box", frozenset({3}))


def identify(data: bytes) -> None:
    """The answer is a short text, or an `IdentifyError` says why there is none.

    The first byte says in which style was asked.
    """
    with every_server_answers(data[1:]):
        try:
            text = ask(_SERVICES[data[:1] > b"\x7f"], b"jpeg", "box")
        except IdentifyError:
            return
    assert 0 < len(text) <= MAX_ANSWER_CHARACTERS
    assert text == text.strip()
    assert text.encode()  # as a message, which holds UTF-8


def prompts(data: bytes) -> None:
    """Every phrase is understood or refused, none is lost, and thresholds lie in [0, 1]."""
    text = data.decode(errors="ignore")
    answer = parse_prompt(text)
    assert all(0.0 <= phrase.threshold <= 1.0 for phrase in answer.phrases)
    assert bool(answer.message) == bool(answer.refused)
    for phrase in answer.phrases:
        assert isinstance(selects(phrase, _BOX), bool)
    assert not query((), text).found
