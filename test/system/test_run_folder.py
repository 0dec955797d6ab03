# SPDX-License-Identifier: Apache-2.0
"""A run has a folder of its own or says why it cannot, and a length that its source can have."""

from __future__ import annotations

import math
import os

import pytest

from worldsystem.cli import _choice, _parser
from worldsystem.graph import Choice, simulator_parameters
from worldsystem.run_folder import in_its_folder, new_run_folder
from worldsystem_core.config import config_from
from worldsystem_core.errors import ConfigError
from worldsystem_sim.config import SimConfig


def test_a_run_folder_is_never_used_twice(tmp_path):
    first = new_run_folder(tmp_path)
    first.mkdir()
    assert new_run_folder(tmp_path) != first


def test_runs_that_begin_in_the_same_second_have_folders_of_their_own(tmp_path):
    folder = new_run_folder(tmp_path / "runs")
    begun = [in_its_folder(Choice(out=folder, own_folder=True)) for _ in range(3)]
    assert len({choice.out for choice, _ in begun}) == 3
    assert all(made and choice.out.is_dir() for choice, made in begun)


def test_a_folder_that_was_asked_for_may_be_there_already(tmp_path):
    choice, made = in_its_folder(Choice(out=tmp_path / "run"))
    assert made
    assert in_its_folder(choice) == (choice, False)


def test_a_folder_that_cannot_be_used_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(ConfigError, match="choose another --out"):
            in_its_folder(Choice(out=place))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written_is_named(tmp_path):
    (tmp_path / "run").mkdir(mode=0o500)
    with pytest.raises(ConfigError, match="choose another --out"):
        in_its_folder(Choice(out=tmp_path / "run"))


@pytest.mark.parametrize("source", ["sim", "sim:orbit"])
def test_a_simulated_run_has_a_length_that_the_simulator_takes(source):
    choice = _choice(_parser().parse_args(["run", source]))
    assert config_from(SimConfig, simulator_parameters(choice)).duration_s == choice.duration_s
    longer = _choice(_parser().parse_args(["run", source, "--duration", "90"]))
    assert simulator_parameters(longer)["duration_s"] == 90.0


@pytest.mark.parametrize("source", ["server:", "clip.mp4", "rtsp://camera/live"])
def test_any_other_source_goes_on_until_it_ends(source):
    choice = _choice(_parser().parse_args(["run", source]))
    assert choice.duration_s == math.inf
