# SPDX-License-Identifier: Apache-2.0
"""The parsers' laws hold for the corpora, for mutations of them, and for what a fuzzer finds."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

FUZZ = Path(__file__).parent
sys.path.insert(0, str(FUZZ))

from targets import CORPUS, TARGETS  # noqa: E402  (its folder is put on the path above)

_MUTATIONS = 200
_MOST_BYTES = 1_000_000
_MARKED = [
    pytest.param(name, marks=[pytest.mark.ros] if target.needs_ros else [])
    for name, target in TARGETS.items()
]


@pytest.fixture
def law(name: str):
    """The law of a target; skipped where what it needs is not installed."""
    if TARGETS[name].needs_ros:
        pytest.importorskip("rclpy", reason="ROS is not set up: run these through `make test`")
    return TARGETS[name].law(name)


def seeds_of(name: str) -> list[bytes]:
    return [path.read_bytes() for path in sorted((CORPUS / name).iterdir())]


@pytest.mark.parametrize("name", _MARKED)
def test_the_laws_hold_for_the_corpus(name: str, law):
    seeds = seeds_of(name)
    assert seeds
    for data in [b"", *seeds]:
        law(data)


@pytest.mark.parametrize("name", _MARKED)
def test_the_laws_hold_for_mutations_of_the_corpus(name: str, law):
    rng = np.random.default_rng(5)
    seeds = [data for data in seeds_of(name) if data]
    for number in range(_MUTATIONS):
        data = bytearray(seeds[number % len(seeds)][:600])
        for place in rng.integers(0, len(data), rng.integers(1, 12)):
            data[place] = rng.choice([0, 0, 1, 3, 0x67, 0x68, 0xFF, rng.integers(0, 256)])
        law(bytes(data))


def test_every_corpus_belongs_to_a_target_and_all_are_small():
    assert {path.name for path in CORPUS.iterdir()} == set(TARGETS)
    sizes = [path.stat().st_size for path in CORPUS.rglob("*") if path.is_file()]
    assert sum(sizes) < _MOST_BYTES


@pytest.mark.skipif(
    importlib.util.find_spec("atheris") is None, reason="atheris is missing: pip install atheris"
)
@pytest.mark.parametrize("name", ["rtsp", "page_protocol"])
def test_a_short_search_breaks_no_law(name: str, tmp_path: Path):
    results = tmp_path / "fuzz.json"
    command = [sys.executable, str(FUZZ / "run.py"), "--seconds", "3", "--only", name]
    command += ["--found", str(tmp_path / "found"), "--results", str(results)]
    (tmp_path / "found").mkdir()
    run = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert run.returncode == 0, run.stderr[-2000:]
    assert list((tmp_path / "found").iterdir()) == []
    assert f'"fuzz.{name}_min"' in results.read_text()
