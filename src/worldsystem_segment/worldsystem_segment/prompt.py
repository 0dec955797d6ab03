# SPDX-License-Identifier: Apache-2.0
"""The small honest grammar of prompts: what geometry and colour can tell, and nothing else.

    phrase = [colour] [size] [state] [noun] [@score]   noun: box, ball, cylinder, object, floor …

A phrase with any other word is refused as a whole; nothing is ever guessed for it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

COLOURS = (
    "red", "orange", "yellow", "green", "cyan", "blue", "purple", "pink", "brown", "black", "grey",
    "white",
)  # fmt: skip
SIZES = {"small": "small", "tiny": "small", "little": "small", "large": "large", "big": "large"}
STATES = {"moving": "moving", "static": "static", "still": "static"}
NOUNS = {
    "box": "box", "cube": "box", "block": "box",
    "ball": "ball", "sphere": "ball",
    "cylinder": "cylinder", "tube": "cylinder",
    "flat": "flat", "plate": "flat",
    "object": "object", "thing": "object",
    "floor": "floor", "ground": "floor", "wall": "wall",
    "tag": "tag",
}  # fmt: skip
_SPELLINGS = {"gray": "grey", "violet": "purple"}
_FILLERS = {"a", "an", "the", "any", "all", "every"}
_PLURALS = {"boxes": "box", "balls": "ball", "spheres": "ball"}


@dataclass(frozen=True)
class Phrase:
    """What one phrase asks for; an empty field asks for nothing in particular."""

    text: str
    colour: str = ""
    size: str = ""
    state: str = ""
    noun: str = "object"
    tag: int | None = None
    threshold: float = 0.0  # least score of what is reported for it


@dataclass(frozen=True)
class Description:
    """What is known of one object, in the words of the grammar; `noun` is never empty."""

    colour: str
    size: str
    state: str
    noun: str
    tags: frozenset[int] = frozenset()

    @property
    def label(self) -> str:
        """For example `small red box`, `moving grey object` or `floor`."""
        if self.noun in ("floor", "wall"):
            return self.noun
        state = "moving" if self.state == "moving" else ""
        marks = " ".join(f"tag:{tag}" for tag in sorted(self.tags))
        return " ".join(w for w in (state, self.size, self.colour, self.noun, marks) if w)


@dataclass(frozen=True)
class PromptAnswer:
    """Which phrases of a prompt are understood and which are refused."""

    phrases: tuple[Phrase, ...]
    refused: tuple[str, ...]

    @property
    def understood(self) -> list[str]:
        """The text of each understood phrase."""
        return [phrase.text for phrase in self.phrases]

    advice: str = ""  # what can be said instead

    @property
    def message(self) -> str:
        """What to do about the refused phrases, or the advice alone when none is refused."""
        if not self.refused:
            return self.advice
        return f"not understood: {', '.join(self.refused)}; {self.advice or vocabulary()}"

    def with_thresholds(self, thresholds: Sequence[float]) -> PromptAnswer:
        """The same with these least scores, one for each understood phrase, in their order."""
        pairs = zip(self.phrases, thresholds, strict=True)
        return replace(self, phrases=tuple(replace(p, threshold=float(t)) for p, t in pairs))


def vocabulary() -> str:
    """One sentence that lists every word a prompt may hold."""
    nouns = ", ".join(n for n in NOUNS if n != "tag")
    return (
        f"known colours: {', '.join(COLOURS)}; sizes: {', '.join(SIZES)}; "
        f"states: {', '.join(STATES)}; nouns: {nouns}, tag or tag:<number>"
    )


def parse_prompt(text: str) -> PromptAnswer:
    """Split `text` at full stops, commas, semicolons, `and` and `or`; parse each phrase.

    An empty text gives no phrase at all, which means every object.
    """
    phrases: list[Phrase] = []
    refused: list[str] = []
    for part, threshold in phrases_of(text):
        phrase = parse_phrase(part)
        if phrase is not None:
            phrases.append(replace(phrase, threshold=threshold or 0.0))
        else:
            refused.append(part)
    return PromptAnswer(tuple(phrases), tuple(refused))


def phrases_of(text: str) -> list[tuple[str, float | None]]:
    """The phrases of a prompt in lower case, each with the least score after its `@`, if any."""
    parts = re.split(r"\.(?!\d)|[,;\n]|\band\b|\bor\b", text.lower())
    found: list[tuple[str, float | None]] = []
    for part in (" ".join(p.split()) for p in parts):
        match = re.fullmatch(r"(.+?)\s*@\s*(0?\.\d+|[01](?:\.\d*)?)", part)
        if match and float(match[2]) <= 1.0:
            found.append((match[1], float(match[2])))
        elif part:
            found.append((part, None))
    return found


def parse_phrase(text: str) -> Phrase | None:
    """The meaning of one phrase in lower case, or None when a word is unknown or used twice."""
    found: dict[str, str] = {}
    tag: int | None = None
    for word in (_singular(w) for w in text.split() if w not in _FILLERS):
        if match := re.fullmatch(r"tag:(\d{1,9})", word):
            tag, word = int(match[1]), "tag"
        field, value = _meaning(word)
        if not field or field in found:
            return None
        found[field] = value
    if not found:
        return None
    said = Phrase(text=text, tag=tag)
    return replace(said, **dict(found))  # type: ignore[arg-type]


def selects(phrase: Phrase, described: Description) -> bool:
    """Whether an object of this description is what the phrase asks for.

    `object` is any thing that is not structure; floors and walls come only when named.
    """
    if phrase.noun == "tag":
        if not described.tags or (phrase.tag is not None and phrase.tag not in described.tags):
            return False
    elif phrase.noun == "object":
        if described.noun in ("floor", "wall"):
            return False
    elif phrase.noun != described.noun:
        return False
    wanted = ((phrase.colour, described.colour), (phrase.size, described.size))
    if any(want and want != is_ for want, is_ in wanted):
        return False
    return not phrase.state or phrase.state == described.state


def _singular(word: str) -> str:
    word = _PLURALS.get(word, word)
    return word[:-1] if word.endswith("s") and word[:-1] in NOUNS else word


def _meaning(word: str) -> tuple[str, str]:
    word = _SPELLINGS.get(word, word)
    if word in COLOURS:
        return "colour", word
    for field, words in (("size", SIZES), ("state", STATES), ("noun", NOUNS)):
        if word in words:
            return field, words[word]
    return "", ""
