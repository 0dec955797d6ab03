# SPDX-License-Identifier: Apache-2.0
"""The card of the training that is published."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from plan import SIZES

from worldsystem_slam3r.config import Slam3rConfig
from worldsystem_slam3r.model.i2p import ImageToPoints
from worldsystem_slam3r.model.l2w import LocalToWorld

ROOT = Path(__file__).parents[2]
CARD = json.loads((ROOT / "training" / "smallest" / "card.json").read_text())


def test_the_published_figures_are_those_of_the_card():
    results = json.loads((ROOT / "benchmarks" / "results" / "slam3r_training.json").read_text())
    figures = {figure["id"]: figure["value"] for figure in results["results"]}
    held_out = CARD["held_out"]
    for figure, net, best in (
        ("slam3r.tiny_heldout_ratio", "i2p", "i2p_constant_depth"),
        ("slam3r.tiny_l2w_heldout_ratio", "l2w", "l2w_unmoved"),
    ):
        others = [value for name, value in held_out.items() if name.startswith(f"{net}_un")]
        assert held_out[best] <= min(others)
        assert figures[figure] == pytest.approx(held_out[net] / held_out[best])


def test_the_card_is_of_the_smallest_size_and_its_thresholds_are_settings():
    sizes = SIZES[CARD["plan"]["sizes"]]
    for name, kind in (("i2p", ImageToPoints), ("l2w", LocalToWorld)):
        assert sum(p.numel() for p in kind(sizes).parameters()) == CARD["parameters"][name]
    Slam3rConfig(**CARD["settings"])
    assert sum(CARD["minutes"].values()) == pytest.approx(20.0)


def test_the_size_for_a_gpu_is_at_most_twenty_megabytes_in_half_precision():
    sizes = SIZES["tiny"]
    both = (ImageToPoints(sizes), LocalToWorld(sizes))
    assert 2 * sum(p.numel() for net in both for p in net.parameters()) < 20e6
