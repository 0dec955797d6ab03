# SPDX-License-Identifier: Apache-2.0
"""The index of places, flat lists against a Python list for each word, in the same run.

Keyframes are made up: four views of each place, whose 1000 codes differ by up to a quarter. Asking,
adding and forgetting are timed at the full size, and both must give the same votes.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
from harness import QUICK, Benchmark
from places_naive import ListedPostings

from worldsystem_slam3r.graph.features import Features
from worldsystem_slam3r.graph.places import BITS, TABLES, PlaceIndex
from worldsystem_slam3r.graph.postings import Postings

SIZES = (60,) if QUICK else (60, 600, 3000)
FEATURES, VIEWS, TIMED = 1000, 4, 30
STEPS = ("ask", "add", "forget")


def words_of_keyframes(count: int) -> list[np.ndarray]:
    """A word of each corner in each table, of each keyframe."""
    rng, index = np.random.default_rng(1), PlaceIndex()
    places = rng.gamma(0.5, 30.0, (-(-count // VIEWS), FEATURES, 128))
    found = []
    for number in range(count):
        codes = places[number % len(places)] * rng.uniform(0.8, 1.25, (FEATURES, 128))
        nowhere = np.zeros((FEATURES, 3), np.float32)
        corners = Features(nowhere[:, :2], codes.clip(0, 255).astype(np.uint8), nowhere)
        found.append(index.words(corners))
    return found


def timed(postings: Postings | ListedPostings, words: list[np.ndarray]) -> Iterator[np.ndarray]:
    """Seconds of each step for some keyframes, where all others are held; the votes, at last."""
    count = len(words)
    for row, each in enumerate(words):
        postings.add(row, each)
    for row in range(0, count, count // TIMED):
        marks = [time.perf_counter()]
        postings.votes(words[row], count)
        marks.append(time.perf_counter())
        postings.remove(row, words[row])
        marks.append(time.perf_counter())
        postings.add(row, words[row])
        marks.append(time.perf_counter())
        ask_s, forget_s, add_s = np.diff(marks)
        yield np.array([ask_s, add_s, forget_s])


def main() -> None:
    bench = Benchmark("places")
    warm = Postings(TABLES, 1 << BITS)
    list(timed(warm, words_of_keyframes(TIMED)))
    for count in SIZES:
        words = words_of_keyframes(count)
        flat, listed = Postings(TABLES, 1 << BITS), ListedPostings(TABLES)
        ours_s = np.median(list(timed(flat, words)), axis=0)
        theirs_s = np.median(list(timed(listed, words)), axis=0)
        same = np.allclose(flat.votes(words[0], count), listed.votes(words[0], count), rtol=1e-9)
        if not same:
            raise SystemExit("the two do not give the same votes: nothing was written")
        for step, ours, theirs in zip(STEPS, 1e3 * ours_s, 1e3 * theirs_s, strict=True):
            note = f"{ours:.2f} ms, {theirs:.2f} ms with a Python list for each word"
            bench.add(f"{step}_speedup_{count}", theirs / ours, "x", note=note)
        ours_mb, theirs_mb = flat.size_bytes / 1e6, listed.size_bytes / 1e6
        note = f"{ours_mb:.1f} MB, {theirs_mb:.1f} MB with a Python list for each word"
        bench.add(f"memory_ratio_{count}", ours_mb / theirs_mb, "-", note=note)
    bench.write()


if __name__ == "__main__":
    main()
