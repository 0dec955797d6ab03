# SPDX-License-Identifier: Apache-2.0
"""Which keyframes may show the same place: votes of binary words, without a trained vocabulary.

A descriptor's word in a table is the signs of random projections of it (locality-sensitive hashing;
Charikar, STOC 2002); like descriptors share words in some of the tables. Each shared word votes
for the keyframes that hold it, the more the rarer the word is (Sivic and Zisserman, ICCV 2003).
The thresholds of the projections are the medians of the first picture's, so that words are used
evenly. The plain twin is `votes_by_comparison`.
"""

from __future__ import annotations

import math
from collections.abc import Set
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Int64

from worldsystem_slam3r.graph.features import Features
from worldsystem_slam3r.graph.postings import Postings

TABLES = 8
BITS = 16
LEAST_FEATURES = 20


@dataclass(frozen=True)
class Candidate:
    """A keyframe that may show the same place, and the weight of its votes per feature asked."""

    id: int
    score: float


class PlaceIndex:
    """An inverted index from words to keyframes: 4 MB, and 60 to 70 kB a keyframe."""

    def __init__(self, seed: int = 1) -> None:
        rng = np.random.default_rng(seed)
        self._planes = rng.normal(size=(128, TABLES * BITS)).astype(np.float32)
        self._thresholds: Float32[np.ndarray, "p"] | None = None
        self._postings = Postings(TABLES, 1 << BITS)
        self._ids: list[int] = []
        self._feature_counts: list[int] = []
        self._row: dict[int, int] = {}
        self._free: list[int] = []
        self._last: tuple[Features, Int64[np.ndarray, "n t"]] | None = None

    def __len__(self) -> int:
        return len(self._row)

    @property
    def ids(self) -> Set[int]:
        """All that can be found."""
        return self._row.keys()

    def add(self, id: int, features: Features) -> None:
        """Make keyframe `id` findable; one with too few corners stays unfindable."""
        if len(features) < LEAST_FEATURES or id in self._row:
            return
        row = self._row[id] = self._free_row()
        self._ids[row], self._feature_counts[row] = id, len(features)
        self._postings.add(row, self.words(features))

    def remove(self, id: int, features: Features) -> None:
        """Never find `id` again, which was added with these `features`."""
        row = self._row.pop(id, None)
        if row is None:
            return
        self._feature_counts[row] = 0
        self._free.append(row)
        self._postings.remove(row, self.words(features))

    def _free_row(self) -> int:
        if not self._free:
            self._free.append(len(self._ids))
            self._ids.append(-1)
            self._feature_counts.append(0)
        return self._free.pop()

    def candidates(self, features: Features, count: int, without: Set[int]) -> list[Candidate]:
        """The `count` likeliest keyframes, best first, none of `without`."""
        return self.best(self.votes(features), count, without)

    def best(
        self, votes: Float32[np.ndarray, "k"], count: int, without: Set[int]
    ) -> list[Candidate]:
        """The `count` keyframes with the most of these `votes`, best first, none of `without`."""
        votes = votes.copy()
        for key in self._row.keys() & without:
            votes[self._row[key]] = 0.0
        order = np.argsort(-votes, kind="stable")[:count]
        return [Candidate(self._ids[row], float(votes[row])) for row in order if votes[row] > 0]

    def votes(self, features: Features) -> Float32[np.ndarray, "k"]:
        """Weight of the votes for each keyframe added so far (0 for removed ones)."""
        total = len(self._ids)
        if not total or len(features) < LEAST_FEATURES:
            return np.zeros(total, np.float32)
        votes = self._postings.votes(self.words(features), total)
        counts = np.array(self._feature_counts, np.float64)
        safe = np.sqrt(np.maximum(counts, 1.0) * len(features))
        return np.where(counts > 0, votes / (TABLES * safe), 0.0).astype(np.float32)

    def share_of(self, id: int, votes: Float32[np.ndarray, "k"]) -> float:
        """What of these `votes` is for one keyframe; 0 for one that is not here."""
        row = self._row.get(id)
        return 0.0 if row is None else float(votes[row])

    def words(self, features: Features) -> Int64[np.ndarray, "n t"]:
        """A word of each feature in each table; those of the features asked for last are kept,
        since a keyframe is looked for and then added."""
        if self._last is None or self._last[0] is not features:
            self._last = (features, self._words_of(features))
        return self._last[1]

    def _words_of(self, features: Features) -> Int64[np.ndarray, "n t"]:
        projected = features.unit_codes() @ self._planes
        if self._thresholds is None:
            self._thresholds = np.median(projected, axis=0)
        octets = np.packbits(projected > self._thresholds, axis=1)  # BITS fill whole octets
        return octets.view(np.uint16).astype(np.int64)


def votes_by_comparison(asked: Features, of: list[Features]) -> Float32[np.ndarray, "k"]:
    """The slow twin: the share of descriptors that have a clear match in each picture."""
    from worldsystem_slam3r.graph.features import matches

    counts = [len(matches(asked, other)[0]) for other in of]
    sizes = [math.sqrt(max(len(other), 1) * max(len(asked), 1)) for other in of]
    return np.array(counts, np.float32) / np.array(sizes, np.float32)
