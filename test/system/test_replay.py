# SPDX-License-Identifier: Apache-2.0
"""A recording through the whole graph again: the same path and mesh each time, at any pace."""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="ROS is not set up: run these through `make test`")

from worldsystem import replay_command
from worldsystem.cli import main
from worldsystem.graph import stages
from worldsystem.replay_command import recording_in

HASH = re.compile(r"^([0-9a-f]{64})  \S*?([\w.]+)$", re.MULTILINE)


def choice(*words: str):
    parser = argparse.ArgumentParser()
    replay_command.add_replay(parser.add_subparsers())
    return replay_command.choice_of(parser.parse_args(["replay", *words]))


def test_every_node_but_the_one_that_tells_the_time_follows_it(tmp_path):
    found = {stage.name: given for stage, given in stages(choice(str(tmp_path), "--record"))}
    assert found["ingest"]["clock"] is True
    assert "use_sim_time" not in found["ingest"]
    others = [name for name in found if name != "ingest"]
    assert len(others) >= 5
    assert all(found[name]["use_sim_time"] is True for name in others)


def test_words_become_settings_of_ingest_and_others_can_be_set_beside(tmp_path):
    words = ["--rate", "10", "--start", "2", "--duration", "3", "--loop", "--topics", "/camera"]
    given = choice(str(tmp_path), *words, "--set", "mesher.voxel=0.1", "ingest.fps=5").extra
    assert given["ingest"] == {
        "speed": 10.0,
        "start_s": 2.0,
        "play_s": 3.0,
        "loop": True,
        "topic": "",
        "topics": "/camera",
        "clock": True,
        "fps": 5,
    }
    assert given["mesher"] == {"use_sim_time": True, "voxel": 0.1}


def test_the_parts_of_a_recording_that_are_not_played_are_named(tmp_path, caplog):
    for part in ("bag", "bag_2"):
        (tmp_path / part).mkdir()
        (tmp_path / part / "part_0.mcap").touch()
    (tmp_path / "bag" / "metadata.yaml").touch()
    assert recording_in(tmp_path) == tmp_path / "bag"
    assert "only bag is played, not bag_2" in caplog.text


@pytest.mark.parametrize("rate", ["0", "-1", "fast", "nan", "inf"])
def test_a_rate_that_is_none_is_refused_as_wrong_use(tmp_path, capsys, rate):
    assert main(["replay", str(tmp_path), f"--rate={rate}"]) == 2
    assert f"--rate {rate} must be a positive number, or max" in capsys.readouterr().err


def replayed(run: Path, out: Path, rate: str) -> dict[str, str]:
    command = [sys.executable, "-m", "worldsystem.cli", "replay", str(run), "--rate", rate]
    command += ["--headless", "--duration", "4", "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr
    return {name: digest for digest, name in HASH.findall(done.stdout)}


@pytest.mark.slow
@pytest.mark.ros
def test_two_replays_give_the_same_path_and_mesh_also_at_ten_times_the_pace(run, tmp_path):
    first = replayed(run.folder, tmp_path / "first", "max")
    assert set(first) == {"trajectory.tum", "mesh.ply"}
    assert replayed(run.folder, tmp_path / "again", "max") == first
    assert replayed(run.folder, tmp_path / "fast", "10") == first
