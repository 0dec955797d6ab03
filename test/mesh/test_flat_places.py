# SPDX-License-Identifier: Apache-2.0
"""Flat places hold what a dictionary does."""

from __future__ import annotations

import numpy as np
import pytest

from worldsystem_mesh.flat_places import FlatPlaces


def test_it_is_a_dictionary_whatever_is_done_to_it() -> None:
    rng = np.random.default_rng(3)
    flat, plain = FlatPlaces(), {}
    for key, act, place in zip(
        rng.integers(0, 5000, 20_000).tolist(),
        rng.integers(0, 3, 20_000).tolist(),
        rng.integers(0, 10**6, 20_000).tolist(),
        strict=True,
    ):
        if act:
            flat[key] = plain[key] = place
        else:
            assert flat.pop(key, None) == plain.pop(key, None)
        assert flat.get(key) == plain.get(key)
        assert (key in flat) == (key in plain)
        assert len(flat) == len(plain)
    assert dict(flat) == plain


@pytest.mark.parametrize("key", [-1, 7, 10**6])
def test_what_is_not_there_is_a_key_error(key: int) -> None:
    flat = FlatPlaces()
    flat[3] = 0
    assert key not in flat
    with pytest.raises(KeyError):
        flat[key]
    with pytest.raises(KeyError):
        del flat[key]
