# SPDX-License-Identifier: Apache-2.0
"""Two runs in one map would sweep away each other's files: the second is told so."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
from drifting_backend import DriftingBackend, Film, film, ring_poses

from worldsystem_core.errors import MapError
from worldsystem_slam3r import backend as backends
from worldsystem_slam3r.config import Slam3rConfig
from worldsystem_slam3r.maps import autosave, claim
from worldsystem_slam3r.maps.autosave import MapSaver
from worldsystem_slam3r.maps.claim import LOCK, MapClaim
from worldsystem_slam3r.maps.content import SavedMap
from worldsystem_slam3r.maps.folder import Manifest, read_manifest, write_map
from worldsystem_slam3r.maps.next_life import end_map
from worldsystem_slam3r.session.backend import GraphBackend
from worldsystem_slam3r.session.restartable import RenewableBackend

ANOTHER_RUN = """
import sys
from pathlib import Path
from worldsystem_slam3r.maps.claim import MapClaim
MapClaim(Path(sys.argv[1])).take()
print("has it", flush=True)
sys.stdin.read()
"""

A_RUN_THAT_SAVES_AS_IT_ENDS = """
import shutil, sys
from pathlib import Path
from worldsystem_slam3r.maps.claim import MapClaim
folder, newest = map(Path, sys.argv[1:])
MapClaim(folder).take()
print("has it", flush=True)
sys.stdin.read()
shutil.rmtree(folder / "keyframes")
shutil.copytree(newest, folder, dirs_exist_ok=True)
"""
A_RUN_THAT_SAVES_FOR_THE_FIRST_TIME = """
import sys
from pathlib import Path
from worldsystem_slam3r.maps.folder import write_map
write_map(Path(sys.argv[1]), {}, [("graph-1.npz", lambda: b"graph")], saved_ns=1)
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


@pytest.fixture(scope="module")
def ring() -> Film:
    return film(ring_poses(17)[:8])


def graph_over(of: Film, **settings: object) -> GraphBackend:
    backend = RenewableBackend(DriftingBackend([of]), None)
    return GraphBackend(backend, Slam3rConfig(**settings))  # type: ignore[arg-type]


def half_and_all_of(ring: Film, place: Path) -> tuple[Path, Path]:
    """Two saved maps: of half of the way, and of all of it as the next generation."""
    folder, newest = place / "map", place / "newest"
    graph = graph_over(ring)
    for n, frame in enumerate(ring.frames):
        graph.feed(frame)
        if n == 3:
            graph.save_map(folder)
    shutil.copytree(folder, newest)
    graph.save_map(newest)
    return folder, newest


@contextmanager
def a_run_that_ends_when_waited_for(
    folder: Path, newest: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """Another process has the map in `folder`, and saves the newest there once somebody waits."""
    command = [sys.executable, "-c", A_RUN_THAT_SAVES_AS_IT_ENDS, str(folder), str(newest)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as run:
        assert run.stdout.readline() == b"has it\n"

        def told_to_end(_: float) -> None:
            run.stdin.close()
            assert run.wait(30.0) == 0

        meanwhile = SimpleNamespace(monotonic=time.monotonic, sleep=told_to_end)
        monkeypatch.setattr(claim, "time", meanwhile)
        yield


def test_who_begins_while_another_run_still_saves_goes_on_in_what_that_saved(
    ring, tmp_path, monkeypatch
):
    """Half of the way is saved, all of it once the other run is told to end."""
    folder, newest = half_and_all_of(ring, tmp_path)
    with a_run_that_ends_when_waited_for(folder, newest, monkeypatch):
        began = graph_over(ring, map=str(folder), map_every_s=60.0)
    assert set(began.atlas.keyframes) == set(range(8))
    began.finish()
    saved = SavedMap(folder)
    saved.check()
    assert (saved.manifest.generation, len(saved.nodes)) == (3, 8)


def test_a_map_that_cannot_be_loaded_is_left_to_others(ring, tmp_path):
    folder = tmp_path / "map"
    session = graph_over(ring)
    session.feed(ring.frames[0])
    session.save_map(folder)
    next(folder.glob("keyframes/*-place.npz")).unlink()
    with pytest.raises(MapError, match="damaged"):
        graph_over(ring, map=str(folder), map_every_s=60.0)
    assert not (folder / LOCK).exists()
    assert read_manifest(folder).generation == 1


class Empty:
    """A map of a graph alone (`MapContent`)."""

    def save(self, folder: Path, saved_ns: int, *, begun_from: int | None = None) -> Manifest:
        parts = [(f"graph-{saved_ns}.npz", lambda: b"graph")]
        return write_map(folder, {}, parts, saved_ns=saved_ns, begun_from=begun_from)


def test_a_map_that_another_run_saved_first_after_this_one_had_begun_is_not_replaced(tmp_path):
    folder = tmp_path / "map"
    saver = MapSaver(folder)  # there is nothing yet to be claimed
    command = [sys.executable, "-c", A_RUN_THAT_SAVES_FOR_THE_FIRST_TIME, str(folder)]
    subprocess.run(command, check=True, timeout=60.0)
    saver.save(Empty(), 2)
    saver.close()
    assert "another run saved after this one had begun" in saver.failure
    assert read_manifest(folder).saved_ns == 1


def test_what_this_run_was_asked_to_save_in_its_own_folder_is_gone_on_from(tmp_path):
    folder = tmp_path / "map"
    saver = MapSaver(folder)
    save(folder, 1)
    saver.save(Empty(), 2)
    saver.close()
    assert saver.failure == ""
    assert (read_manifest(folder).generation, read_manifest(folder).saved_ns) == (2, 2)


def test_who_begins_while_a_run_saves_its_first_map_after_a_reset_goes_on_in_that(
    ring, tmp_path, monkeypatch
):
    """Half of the way was ended by a reset; all of it is saved once that run is told to end."""
    folder, newest = half_and_all_of(ring, tmp_path)
    end_map(folder)
    monkeypatch.setitem(backends._MAKERS, "geometric", lambda _: DriftingBackend([ring]))
    with a_run_that_ends_when_waited_for(folder, newest, monkeypatch):
        config = Slam3rConfig(map=str(folder), map_every_s=60.0)
        began = backends.open_backend("geometric", config).backend
    assert set(began.atlas.keyframes) == set(range(8))
    began.finish()
    assert len(SavedMap(folder).nodes) == 8
