# SPDX-License-Identifier: Apache-2.0
"""Folders of published weights: what is missing in one, and how it gets there."""

from __future__ import annotations

import json
import shutil
import sys

import pytest
import torch
from tiny_networks import tiny_dino, tiny_sam2, tiny_sam3

from worldsystem_core.errors import BackendError, ConfigError, WeightsMissing
from worldsystem_segment.backend import create_backend
from worldsystem_segment.config import SegmentConfig
from worldsystem_segment.learned import loading

PAGES = {"grounded_sam2": "IDEA-Research/grounding-dino-tiny", "sam3": "facebook/sam3"}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Of one network's files each, without a tokenizer."""
    made = {"detector": tiny_dino()[0], "masks": tiny_sam2(), "sam3": tiny_sam3()}
    root = tmp_path_factory.mktemp("published")
    for name, network in made.items():
        network.save_pretrained(root / name)
    return root


@pytest.mark.parametrize("name", PAGES)
def test_missing_weights_are_set_and_not_fetched(name, tmp_path) -> None:
    """`make weights` fetches those of the reconstruction alone."""
    given = SegmentConfig(backend=name, detector=str(tmp_path), masks=str(tmp_path))
    for config in (SegmentConfig(backend=name), given):
        with pytest.raises(WeightsMissing, match=f"set segmenter.*{PAGES[name]}") as raised:
            create_backend(name, config)
        assert "make weights" not in str(raised.value)


@pytest.mark.parametrize("broken", [None, b"version https://git-lfs.github.com/spec/v1"])
@pytest.mark.parametrize("setting", ["detector", "masks"])
def test_a_folder_without_whole_weights_is_named(folders, setting, broken, tmp_path) -> None:
    for name in ("detector", "masks"):
        shutil.copytree(folders / name, tmp_path / name)
    tiny_dino()[1].save_pretrained(tmp_path / "detector")
    create_backend("grounded_sam2", _config(tmp_path)).close()
    weights = tmp_path / setting / "model.safetensors"
    weights.unlink() if broken is None else weights.write_bytes(broken)
    with pytest.raises(BackendError, match=rf"segmenter\.{setting}: '.*{setting}' is not whole"):
        create_backend("grounded_sam2", _config(tmp_path))


def test_a_configuration_that_is_no_json_is_named(tmp_path) -> None:
    (tmp_path / "config.json").write_text("<html>")
    with pytest.raises(BackendError, match=r"is not whole.*facebook/sam3"):
        create_backend("sam3", SegmentConfig(backend="sam3", masks=str(tmp_path)))


@pytest.mark.parametrize(("name", "masks"), [("grounded_sam2", "masks"), ("sam3", "sam3")])
def test_a_folder_without_its_tokenizer_is_named(folders, name, masks) -> None:
    """The library would make one that knows no word, and nothing would be found."""
    with pytest.raises(BackendError, match=r"is not whole.*tokenizer"):
        create_backend(name, _config(folders, masks))


def _config(folder, masks="masks") -> SegmentConfig:
    return SegmentConfig(detector=str(folder / "detector"), masks=str(folder / masks), device="cpu")


@pytest.mark.parametrize("name", ["grounded_sam2", "sam3"])
def test_a_back_end_without_its_weights_says_which_setting_names_them(name, tmp_path) -> None:
    with pytest.raises(WeightsMissing, match=r"segmenter\.(detector|masks)"):
        create_backend(name, SegmentConfig(backend=name))
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(BackendError, match="bert"):
        create_backend(
            name, SegmentConfig(backend=name, detector=str(tmp_path), masks=str(tmp_path))
        )


@pytest.mark.parametrize("device", ["gpu", "cuda:1"])
def test_a_device_that_networks_cannot_run_on_is_refused_with_those_they_can(device) -> None:
    """Recordings of kernels are of the first GPU; CUDA_VISIBLE_DEVICES says which that is."""
    with pytest.raises(ConfigError, match=r"device = .*known: auto, cpu, cuda"):
        SegmentConfig(device=device)


@pytest.mark.parametrize(("name", "masks"), [("grounded_sam2", "masks"), ("sam3", "sam3")])
def test_a_gpu_without_memory_for_the_networks_is_told_with_what_to_do(
    folders, name, masks, monkeypatch
) -> None:
    def no_memory(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(loading, "_network", no_memory)
    with pytest.raises(BackendError, match=r"too little memory.*segmenter\.device=cpu"):
        create_backend(name, _config(folders, masks))


def test_weights_that_do_not_fit_their_configuration_are_named(folders, tmp_path) -> None:
    """All model pages call their files alike."""
    for name in ("detector", "masks"):
        shutil.copytree(folders / name, tmp_path / name)
    tiny_dino()[1].save_pretrained(tmp_path / "detector")
    place = tmp_path / "masks" / "config.json"
    other = json.loads(place.read_text()) | {"memory_fuser_intermediate_dim": 64}
    place.write_text(json.dumps(other))
    with pytest.raises(BackendError, match=r"segmenter\.masks: '.*masks' .*one model page"):
        create_backend("grounded_sam2", _config(tmp_path))


def test_a_library_that_a_network_lacks_is_told(folders, monkeypatch) -> None:
    def no_timm(*_):
        raise ImportError("TimmWrapperModel requires the timm library")

    monkeypatch.setattr(loading, "_network", no_timm)
    with pytest.raises(BackendError, match=r"segmenter\.detector: .*not installed.*timm"):
        create_backend("grounded_sam2", _config(folders))


def test_a_torchvision_that_does_not_fit_is_told_with_what_to_do(tmp_path, monkeypatch) -> None:
    """The library makes a ModuleNotFoundError of whatever its modules fail with."""
    from transformers.utils.import_utils import _LazyModule

    package = tmp_path / "broken_library"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "vision.py").write_text('raise RuntimeError("no operator torchvision::nms")')
    monkeypatch.syspath_prepend(tmp_path)
    names = {"vision": ["Sam2VideoModel"]}
    broken = _LazyModule("broken_library", str(package / "__init__.py"), names)
    monkeypatch.setitem(sys.modules, "transformers", broken)
    with pytest.raises(BackendError, match="pip uninstall torchvision"):
        loading._transformers()
