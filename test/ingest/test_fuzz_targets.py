# SPDX-License-Identifier: Apache-2.0
"""The parsers' laws hold for the corpus, for mutations of it, and for what a fuzzer finds."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

FUZZ = Path(__file__).parent / "fuzz"
sys.path.insert(0, str(FUZZ))

from targets import TARGETS  # noqa: E402  (its folder is put on the path above)

CORPUS = sorted((FUZZ / "corpus").iterdir())


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.name)
def test_the_laws_hold_for_the_corpus(name: str, path: Path):
    TARGETS[name](path.read_bytes())


@pytest.mark.parametrize("name", TARGETS)
def test_the_laws_hold_for_mutations_of_the_corpus(name: str):
    rng = np.random.default_rng(5)
    seeds = [path.read_bytes() for path in CORPUS]
    for number in range(1500):
        data = bytearray(seeds[number % len(seeds)][:600])
        for place in rng.integers(0, len(data), rng.integers(1, 12)):
            data[place] = rng.choice([0, 0, 1, 3, 0x67, 0x68, 0xFF, rng.integers(0, 256)])
        TARGETS[name](bytes(data))


def test_the_corpus_is_small():
    assert sum(path.stat().st_size for path in CORPUS) < 50_000


@pytest.mark.skipif(
    importlib.util.find_spec("atheris") is None, reason="atheris is missing: pip install atheris"
)
@pytest.mark.parametrize("name", TARGETS)
def test_a_short_search_breaks_no_law(name: str, tmp_path: Path):
    command = [sys.executable, str(FUZZ / "run.py"), "--seconds", "3", "--only", name]
    run = subprocess.run(
        [*command, "--found", str(tmp_path)], capture_output=True, text=True, timeout=60
    )
    assert run.returncode == 0, run.stderr[-2000:]
    assert list(tmp_path.iterdir()) == []
