# SPDX-License-Identifier: Apache-2.0
"""What the words of `--set` mean."""

from __future__ import annotations

from worldsystem.foreseen import check
from worldsystem.graph import Choice
from worldsystem.settings_text import config_words, parse_settings
from worldsystem_sim.config import SimConfig


def test_what_is_text_may_look_like_a_number(tmp_path):
    words = ["slam3r.map=2026", "recorder.name=007", "simulator.out=true", "mesher.voxel=1e-2"]
    given = parse_settings(words)
    assert given["slam3r"] == {"map": "2026"}
    assert given["recorder"] == {"name": "007"}
    assert given["simulator"] == {"out": "true"}
    assert given["mesher"] == {"voxel": 0.01}
    check(Choice(out=tmp_path, extra=given))


def test_a_home_is_written_out_where_no_shell_does_it(monkeypatch):
    monkeypatch.setenv("HOME", "/home/ann")
    assert parse_settings(["slam3r.map=~/site"]) == {"slam3r": {"map": "/home/ann/site"}}
    assert config_words(SimConfig, ["out=~/truth"]) == {"out": "/home/ann/truth"}
