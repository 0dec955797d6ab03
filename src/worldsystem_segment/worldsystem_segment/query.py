# SPDX-License-Identifier: Apache-2.0
"""Asking the map: which objects are like a text, which is nearest, which is largest.

    query = [nearest | farthest | largest | smallest | newest] [phrase]

A phrase is compared with what each object may be: its label, its candidates, what an identify
service said of it. Words are compared as written, with plurals and a few spellings levelled; what
no object is like gives nothing, and says which labels there are.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from worldsystem_core.objects import MapObject

ORDERS = {
    "nearest": "nearest", "closest": "nearest", "farthest": "farthest", "furthest": "farthest",
    "largest": "largest", "biggest": "largest", "smallest": "smallest",
    "newest": "newest", "latest": "newest",
}  # fmt: skip
_FILLERS = {
    "a", "an", "the", "any", "all", "every", "which", "object", "thing", "is", "are", "like",
    "where", "of", "to", "me", "what", "my", "show", "find",
}  # fmt: skip
_SAME = {"gray": "grey", "violet": "purple", "ground": "floor", "cube": "box", "sphere": "ball",
         "big": "large", "little": "small", "tiny": "small", "tube": "cylinder"}  # fmt: skip
_IRREGULAR = {
    "boxes": "box",
    "people": "person",
    "shelves": "shelf",
    "men": "man",
    "women": "woman",
}


@dataclass(frozen=True, eq=False)
class Found:
    """One object that answers a query: how well it fits in [0, 1], how far away it is.

    `distance` [world units] is to the box's surface, NaN when no place was given.
    """

    thing: MapObject
    score: float
    distance: float


@dataclass(frozen=True, eq=False)
class Answer:
    """What was found, best first, and a sentence where that needs one."""

    found: tuple[Found, ...]
    message: str = ""


def query(
    objects: Sequence[MapObject],
    text: str,
    near: Float64[np.ndarray, "3"] | None = None,
    limit: int = 0,
) -> Answer:
    """The objects that `text` asks for. An empty text asks for all, an order alone ranks all."""
    words = [_level(word) for word in re.findall(r"[\w:]+", text.lower())]
    orders = [ORDERS[word] for word in words if word in ORDERS]
    wanted = [word for word in words if word not in ORDERS and word not in _FILLERS]
    if len(orders) > 1:
        return Answer((), f"'{text}' asks for {' and '.join(orders)} at once; ask for one of them")
    if orders and orders[0] in ("nearest", "farthest") and near is None:
        return Answer((), f"'{text}' needs a place: no camera position is known yet, give `near`")
    scored = [(thing, likeness(wanted, thing)) for thing in objects]
    found = [Found(thing, score, _distance(thing, near)) for thing, score in scored if score > 0.0]
    found.sort(key=_ranking(orders[0] if orders else "best"))
    if not found:
        return Answer((), _nothing(objects, text))
    return Answer(tuple(found[:limit] if limit else found))


def likeness(wanted: Sequence[str], thing: MapObject) -> float:
    """How well the words fit an object, in [0, 1]: 0 unless every word is said of it somewhere.

    A word of the label counts whole; one of a candidate counts the share of its votes.
    """
    if not wanted:
        return thing.score
    best = _share_by_word(thing)
    fits = [best.get(word, 0.0) for word in wanted]
    mean: float = float(np.prod(fits)) ** (1.0 / len(fits))
    return mean * max(thing.score, 1e-3)


def _share_by_word(thing: MapObject) -> dict[str, float]:
    shares: dict[str, float] = {}
    texts = [(thing.label, 1.0), *thing.candidates, (thing.identity, 0.9)]
    texts.append(("moving" if thing.moving else "static", 1.0))
    for text, share in texts:
        for word in re.findall(r"[\w:]+", text.lower()):
            level = _level(word)
            shares[level] = max(shares.get(level, 0.0), share)
    return shares


def _level(word: str) -> str:
    word = _IRREGULAR.get(word, word)
    if len(word) > 3 and word.endswith("s") and not word.endswith("ss"):
        word = word[:-1]
    return _SAME.get(word, word)


def _distance(thing: MapObject, near: Float64[np.ndarray, "3"] | None) -> float:
    if near is None:
        return float("nan")
    local = thing.world_from_box[:3, :3].T @ (near - thing.world_from_box[:3, 3])
    outside = np.maximum(np.abs(local) - 0.5 * thing.size, 0.0)
    return float(np.linalg.norm(outside))


def _ranking(order: str) -> Callable[[Found], tuple[float, ...] | float]:
    ranks: dict[str, Callable[[Found], tuple[float, ...] | float]] = {
        "best": lambda f: (-f.score, f.distance if np.isfinite(f.distance) else 0.0),
        "nearest": lambda f: f.distance,
        "farthest": lambda f: -f.distance,
        "largest": lambda f: -float(np.prod(f.thing.size)),
        "smallest": lambda f: float(np.prod(f.thing.size)),
        "newest": lambda f: -f.thing.first_seen_ns,
    }
    return ranks[order]


def _nothing(objects: Sequence[MapObject], text: str) -> str:
    if not objects:
        return "no object is known yet"
    labels = sorted({thing.label for thing in objects})
    shown = ", ".join(labels[:20]) + (" …" if len(labels) > 20 else "")
    return f"no object is like '{text}'; there are: {shown}"
