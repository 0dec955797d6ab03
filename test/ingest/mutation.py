# SPDX-License-Identifier: Apache-2.0
"""A seeded mutator of messages: what bad links, bad senders and bad intentions do to them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np


def mutated(messages: list[bytes], count: int, seed: int) -> Iterator[bytes]:
    """`count` messages in nearly their order, about half of them damaged."""
    rng = np.random.default_rng(seed)
    given, at = 0, 0
    while given < count:
        message = messages[at % len(messages)]
        kind = int(rng.integers(0, 14))
        if kind == 0:
            at += int(rng.integers(-8, 9))  # goes back, or leaves some out
            continue
        at += kind != 1  # 1: twice
        yield _damaged(message, messages, kind, rng)
        given += 1


def _damaged(message: bytes, messages: list[bytes], kind: int, rng: np.random.Generator) -> bytes:
    data = bytearray(message)
    if kind == 2:
        return bytes(data[: rng.integers(0, len(data) + 1)])
    if kind == 3:
        for place in rng.integers(0, len(data), rng.integers(1, 20)):
            data[place] ^= 1 << int(rng.integers(0, 8))
    elif kind == 4:  # the header, where a flip changes the meaning
        data[int(rng.integers(0, min(21, len(data))))] = int(rng.integers(0, 256))
    elif kind == 5:
        other = messages[int(rng.integers(0, len(messages)))]
        return bytes(data[: rng.integers(0, len(data) + 1)]) + other[rng.integers(0, len(other)) :]
    elif kind == 6:
        place = int(rng.integers(0, len(data)))
        data[place:place] = b"\0\0\1" + rng.bytes(int(rng.integers(0, 9)))
    elif kind == 7:
        return rng.bytes(int(rng.integers(0, 200)))
    return bytes(data)
