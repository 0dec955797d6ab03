# SPDX-License-Identifier: Apache-2.0
"""Which back-end runs, where its weights come from, and what is said when it cannot."""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import sys
from pathlib import Path

import filmed_room
import numpy as np
import pytest
from golden import golden_folder, tiny_sizes
from safetensors.torch import load_file, save_file

from worldsystem_core.errors import BackendError, ConfigError, WeightsMissing
from worldsystem_core.reconstruction import Pose
from worldsystem_slam3r import backend as choice
from worldsystem_slam3r import catalogue, weight_files
from worldsystem_slam3r.backend import backend_names, create_backend, open_backend
from worldsystem_slam3r.catalogue import backend_states
from worldsystem_slam3r.config import Slam3rConfig
from worldsystem_slam3r.model.sizes import METADATA_KEY
from worldsystem_slam3r.weight_files import PUBLISHED_LICENCE, find_weights


class StandIn:
    """A back-end that only has to exist."""

    def feed(self, frame):
        return []

    def finish(self):
        return []


@pytest.fixture(autouse=True)
def no_weights(monkeypatch, tmp_path):
    """Nothing of this machine's own weights is seen."""
    monkeypatch.delenv("WORLDSYSTEM_WEIGHTS", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(weight_files, "TINY_FOLDER", tmp_path / "package")


@pytest.fixture
def geometric(monkeypatch):
    """The weight-free back-end, without its half second of kernels."""
    made = StandIn()
    monkeypatch.setitem(choice._MAKERS, "geometric", lambda _: made)
    return made


@pytest.fixture
def tiny_folder(tmp_path) -> Path:
    """Weights of the golden tiny networks as training leaves them."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    for net in ("i2p", "l2w"):
        state = load_file(golden_folder() / f"{net}_tiny.safetensors")
        metadata = {METADATA_KEY: tiny_sizes().to_json()}
        save_file(state, folder / f"{net}.safetensors", metadata=metadata)
    card = {"plan": {"size_px": 64}, "licence": "Apache-2.0", "settings": {"lost_confidence": 1.5}}
    (folder / "card.json").write_text(json.dumps(card))
    return folder


def test_an_unknown_backend_is_refused_with_the_known_ones():
    with pytest.raises(BackendError, match="geometric, slam3r, slam3r_tiny, da3, auto"):
        create_backend("oracle")
    assert backend_names() == ["geometric", "slam3r", "slam3r_tiny", "da3", "auto"]


def test_without_weights_the_error_says_what_to_do():
    with pytest.raises(WeightsMissing, match=r"run `make weights` or set WORLDSYSTEM_WEIGHTS"):
        create_backend("slam3r")


def test_with_fallback_geometry_runs_instead_and_it_is_said(geometric, caplog):
    with caplog.at_level(logging.WARNING):
        opened = open_backend("slam3r", Slam3rConfig(backend="slam3r", fallback=True, graph=False))
    assert opened.backend.inner is geometric
    assert opened.name == "geometric"
    assert "make weights" in opened.note
    assert "'geometric' runs instead" in opened.note
    assert opened.note in caplog.text


def test_auto_takes_geometry_where_the_weights_are_missing_and_says_why(geometric, caplog):
    with caplog.at_level(logging.WARNING):
        opened = open_backend("auto", Slam3rConfig(backend="auto", graph=False))
    assert opened.backend.inner is geometric
    assert "make weights" in caplog.text


def test_auto_leaves_networks_that_are_too_slow_here(geometric, tiny_folder, monkeypatch):
    monkeypatch.setattr(catalogue, "SMALL_WEIGHTS_BYTES", 1000)
    config = Slam3rConfig(backend="auto", weights=str(tiny_folder), device="cpu", graph=False)
    opened = open_backend("auto", config)
    assert opened.backend.inner is geometric
    assert "too slow without a GPU" in opened.note


def test_auto_takes_networks_that_are_fast_enough_here(geometric, tiny_folder):
    config = Slam3rConfig(backend="auto", weights=str(tiny_folder), device="cpu")
    assert open_backend("auto", config).name == "slam3r"


def test_a_gpu_asked_for_in_vain_is_an_error(tiny_folder, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    config = Slam3rConfig(backend="slam3r", weights=str(tiny_folder), device="cuda")
    with pytest.raises(BackendError, match=r"set slam3r\.device=cpu"):
        create_backend("slam3r", config)


def test_networks_from_disk_work_on_a_film(tiny_folder, caplog):
    config = Slam3rConfig(backend="slam3r", weights=str(tiny_folder), device="cpu", threads=1)
    with caplog.at_level(logging.WARNING):
        backend = create_backend("slam3r", config)
    assert "Apache-2.0" in caplog.text
    film = filmed_room.frames(filmed_room.sideways_poses(8), filmed_room.camera(160, 120))
    events = [event for frame in film for event in backend.feed(frame)] + backend.finish()
    poses = [event for event in events if isinstance(event, Pose)]
    assert sorted(pose.frame_id for pose in poses) == list(range(8))
    assert np.isfinite([pose.world_from_cam for pose in poses]).all()


def test_every_backend_is_listed_with_its_licence_and_whether_it_runs(tiny_folder):
    states = {state.name: state for state in backend_states()}
    assert states["geometric"].runs
    assert states["geometric"].licence == "Apache-2.0"
    assert not states["slam3r"].runs
    assert states["slam3r"].licence == PUBLISHED_LICENCE
    assert "make weights" in states["slam3r"].why_not
    assert "training/README.md" in states["slam3r_tiny"].why_not
    here = {s.name: s for s in backend_states(Slam3rConfig(weights=str(tiny_folder)))}
    assert here["slam3r"].runs
    assert here["slam3r"].licence == "Apache-2.0"


def test_too_little_memory_keeps_a_backend_from_running(tiny_folder, monkeypatch):
    monkeypatch.setattr(catalogue, "free_memory_bytes", lambda: 10**8)
    config = Slam3rConfig(weights=str(tiny_folder), device="cpu")
    state = next(state for state in backend_states(config) if state.name == "slam3r")
    assert not state.runs
    assert "0.1 GB of memory free" in state.why_not


@pytest.mark.parametrize(
    "layout",
    [
        "{}.safetensors",
        "slam3r_{}.safetensors",
        "slam3r_{}/model.safetensors",
        "slam3r_{}.pth",
        "slam3r/{}.safetensors",
    ],
)
@pytest.mark.parametrize("by_environment", [True, False])
def test_weights_are_found_however_they_were_laid_down(
    tmp_path, monkeypatch, layout, by_environment
):
    folder = tmp_path / "here"
    for net in ("i2p", "l2w"):
        path = folder / layout.format(net)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"1234")
    if by_environment:
        monkeypatch.setenv("WORLDSYSTEM_WEIGHTS", str(folder))
    files = find_weights("slam3r", "" if by_environment else str(folder))
    assert files.i2p == folder / layout.format("i2p")
    assert files.l2w == folder / layout.format("l2w")
    assert files.licence == PUBLISHED_LICENCE
    assert files.picture_px == 224
    assert files.bytes_on_disk == 8


def test_one_network_alone_is_not_enough(tiny_folder):
    (tiny_folder / "l2w.safetensors").unlink()
    with pytest.raises(WeightsMissing, match="slam3r"):
        find_weights("slam3r", str(tiny_folder))


@pytest.mark.parametrize(
    "card", ["{", '{"plan": {"size_px": 100}}', '{"plan": {"size_px": "wide"}}', '{"settings": 3}']
)
def test_a_damaged_card_is_named(tiny_folder, card):
    (tiny_folder / "card.json").write_text(card)
    with pytest.raises(BackendError, match=r"card\.json"):
        find_weights("slam3r", str(tiny_folder))


def test_the_weights_own_settings_hold_unless_others_are_asked_for():
    from worldsystem_slam3r.slam3r.create import suited

    settings = {"lost_confidence": 1.2, "initial_confidence": 1.8}
    config = suited(Slam3rConfig(initial_confidence=3.0), settings)
    assert config.lost_confidence == 1.2
    assert config.initial_confidence == 3.0
    with pytest.raises(ConfigError, match="trust"):
        suited(Slam3rConfig(), {"trust": 1.0})


@pytest.mark.parametrize("place", ["variable", "subfolder", "given", "package"])
def test_small_networks_of_ones_own_are_found(tiny_folder, tmp_path, monkeypatch, place):
    monkeypatch.delenv("WORLDSYSTEM_WEIGHTS", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tiny_folder
    if place == "variable":
        monkeypatch.setenv("WORLDSYSTEM_WEIGHTS", str(tiny_folder))
    elif place == "subfolder":
        folder = tmp_path / "cache" / "worldsystem" / "weights" / "slam3r_tiny"
        shutil.copytree(tiny_folder, folder)
    elif place == "package":
        monkeypatch.setattr(weight_files, "TINY_FOLDER", tiny_folder)
    given = str(tiny_folder) if place == "given" else ""
    assert find_weights("slam3r_tiny", given).i2p.parent == folder


def test_published_networks_in_the_cache_are_not_taken_for_small_ones(
    tiny_folder, tmp_path, monkeypatch
):
    monkeypatch.delenv("WORLDSYSTEM_WEIGHTS", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    shutil.copytree(tiny_folder, tmp_path / "cache" / "worldsystem" / "weights")
    with pytest.raises(BackendError, match=r"training/README\.md"):
        find_weights("slam3r_tiny")


def test_geometry_runs_without_torch_being_imported():
    program = (
        "import sys; from worldsystem_slam3r.backend import create_backend, backend_names; "
        "from worldsystem_slam3r.geometric.system import GeometricBackend; "
        "GeometricBackend().close(); backend_names(); "
        "from worldsystem_slam3r.catalogue import backend_states; backend_states(); "
        "sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], timeout=120, check=False)
    assert done.returncode == 0
