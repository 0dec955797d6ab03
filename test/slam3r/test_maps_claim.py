# SPDX-License-Identifier: Apache-2.0
"""Two runs in one map would sweep away each other's files: the second is told so."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from worldsystem_core.errors import MapError
from worldsystem_slam3r.maps import autosave
from worldsystem_slam3r.maps.autosave import MapSaver
from worldsystem_slam3r.maps.claim import LOCK, MapClaim
from worldsystem_slam3r.maps.folder import read_manifest, write_map

ANOTHER_RUN = """
import sys
from pathlib import Path
from worldsystem_slam3r.maps.claim import MapClaim
MapClaim(Path(sys.argv[1])).take()
print("has it", flush=True)
sys.stdin.read()
"""


def save(folder: Path, stamp: int) -> None:
    write_map(folder, {}, [(f"graph-{stamp}.npz", lambda: b"graph")], saved_ns=stamp)


@pytest.fixture
def another(tmp_path):
    """A process that keeps the map in `tmp_path` saved."""
    save(tmp_path, 1)
    command = [sys.executable, "-c", ANOTHER_RUN, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as run:
        assert run.stdout.readline() == b"has it\n"
        yield run
        run.kill()


def test_a_map_that_another_run_keeps_saved_is_refused_and_left_as_it_is(
    another, tmp_path, monkeypatch
):
    monkeypatch.setattr(autosave, "PATIENCE_S", 0.2)
    with pytest.raises(MapError, match="kept saved by another run; end that one, or name another"):
        MapSaver(tmp_path)
    with pytest.raises(MapError, match="kept saved by another run"):
        save(tmp_path, 2)
    assert read_manifest(tmp_path).saved_ns == 1


def test_a_map_is_free_at_once_when_its_run_was_killed(another, tmp_path):
    another.kill()
    saver = MapSaver(tmp_path)
    save(tmp_path, 2)
    saver.close()
    assert read_manifest(tmp_path).saved_ns == 2


def test_a_run_that_was_told_to_end_is_waited_for(another, tmp_path):
    another.stdin.close()
    MapSaver(tmp_path).close()


def test_claims_of_one_process_go_together_and_the_last_leaves_nothing(tmp_path):
    one, other = MapClaim(tmp_path), MapClaim(tmp_path)
    one.take()
    other.take()
    one.release()
    assert (tmp_path / LOCK).exists()
    other.release()
    other.release()
    assert not list(tmp_path.iterdir())


def test_nothing_is_made_where_no_map_is_yet(tmp_path):
    saver = MapSaver(tmp_path / "map")
    saver.close()
    assert not (tmp_path / "map").exists()
