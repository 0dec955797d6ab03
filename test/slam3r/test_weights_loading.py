# SPDX-License-Identifier: Apache-2.0
"""Checkpoints load only when every key and shape is right."""

from __future__ import annotations

import argparse
import json
import struct
from pathlib import Path

import pytest
import torch
from golden import golden_folder, tiny_networks, tiny_sizes
from safetensors.torch import load_file, save_file

from worldsystem_core.errors import BackendError
from worldsystem_slam3r.model.i2p import ImageToPoints
from worldsystem_slam3r.model.l2w import LocalToWorld
from worldsystem_slam3r.model.loading import (
    load_networks,
    load_strictly,
    read_checkpoint,
)
from worldsystem_slam3r.model.sizes import METADATA_KEY, PUBLISHED
from worldsystem_slam3r.published import PUBLISHED_FILES, PublishedFile

State = dict[str, torch.Tensor]


@pytest.fixture
def tiny_states() -> tuple[State, State]:
    i2p, l2w = (load_file(golden_folder() / f"{name}_tiny.safetensors") for name in ("i2p", "l2w"))
    return i2p, l2w


def sparse_checkpoint(path: Path, shapes: dict[str, list[int]]) -> None:
    """A float32 safetensors file of zeros whose tensors take no space on the disk."""
    header, end = {}, 0
    for key, shape in sorted(shapes.items()):
        start, end = end, end + 4 * torch.Size(shape).numel()
        header[key] = {"dtype": "F32", "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + end)


@pytest.mark.parametrize(
    ("network", "key", "published"),
    [
        (ImageToPoints, "image_to_points", PUBLISHED_FILES[0]),
        (LocalToWorld, "local_to_world", PUBLISHED_FILES[1]),
    ],
)
def test_a_checkpoint_of_the_published_keys_shapes_and_bytes_loads(
    tmp_path: Path, network: type, key: str, published: PublishedFile
) -> None:
    shapes = json.loads((golden_folder() / "full_size_keys.json").read_text())[key]
    path = tmp_path / "model.safetensors"
    sparse_checkpoint(path, shapes)
    assert path.stat().st_size == published.size_bytes
    with torch.device("meta"):
        net = network(PUBLISHED)
    load_strictly(net, read_checkpoint(path))
    assert not any(tensor.is_meta for tensor in net.state_dict().values())


@pytest.mark.slow
def test_full_size_networks_load_from_files_and_run(tmp_path: Path) -> None:
    noise = torch.Generator().manual_seed(3)
    paths = []
    for network, name in ((ImageToPoints, "i2p"), (LocalToWorld, "l2w")):
        with torch.device("meta"):
            shapes = {key: tensor.shape for key, tensor in network(PUBLISHED).state_dict().items()}
        state = {
            key: torch.randn(shape, generator=noise) * (0.5 / max(shape[-1], 1)) ** 0.5
            for key, shape in shapes.items()
        }
        paths.append(tmp_path / f"{name}.safetensors")
        save_file(state, paths[-1])
        del state
    networks = load_networks(*paths)
    tokens = networks.encode(torch.zeros(2, 3, 224, 224))
    window = networks.i2p(tokens, ref=0)
    refined, world, confidence = networks.l2w(tokens[:1], window[0][:1], tokens[1:], window[0][1:])
    assert tokens.shape == (2, 196, 1024)
    assert refined.shape == world.shape == (1, 224, 224, 3)
    assert torch.isfinite(world).all()
    assert (confidence >= 1).all()


def test_full_size_weights_in_bfloat16_take_less_than_1_6_gb() -> None:
    kept_whole = ("norm", "head", "corr_score", "ponit", "void")
    total_bytes = 0
    with torch.device("meta"):
        for network in (ImageToPoints(PUBLISHED), LocalToWorld(PUBLISHED)):
            for key, tensor in network.state_dict().items():
                total_bytes += tensor.numel() * (4 if any(k in key for k in kept_whole) else 2)
    assert total_bytes < 1.6e9


def test_in_bfloat16_large_matrices_are_reduced_and_heads_are_not(
    tiny_states: tuple[State, State],
) -> None:
    networks = load_networks(*tiny_states, sizes=tiny_sizes(), dtype=torch.bfloat16)
    net = networks.image_to_points
    assert net.enc_blocks[0].attn.qkv.weight.dtype == torch.bfloat16
    assert net.mv_dec_blocks1[2].mlp.fc1.weight.dtype == torch.bfloat16
    assert net.downstream_head1.proj.weight.dtype == torch.float32
    assert net.corr_score_proj.fc1.weight.dtype == torch.float32
    assert net.enc_norm.weight.dtype == torch.float32
    assert networks.local_to_world.ponit_embedder.weight.dtype == torch.float32


def test_bfloat16_stays_near_float32(tiny_states: tuple[State, State]) -> None:
    reduced = load_networks(*tiny_states, sizes=tiny_sizes(), dtype=torch.bfloat16)
    noise = torch.Generator().manual_seed(0)
    images = torch.rand(3, 3, 64, 64, generator=noise) * 2 - 1
    whole = tiny_networks().i2p(tiny_networks().encode(images), ref=0)
    coarse = reduced.i2p(reduced.encode(images), ref=0)
    assert coarse.points.dtype == torch.float32
    error = (coarse.points - whole.points).square().mean().sqrt()
    # random networks amplify: the golden README measured 4.5e-2 of a spread of 1.5
    assert float(error) < 0.1 * float(whole.points.std())


def test_a_missing_an_unexpected_and_a_misshapen_key_are_named(
    tiny_states: tuple[State, State],
) -> None:
    i2p, l2w = tiny_states
    broken = dict(l2w)
    del broken["void_pe_token"]
    broken["surprise.weight"] = torch.zeros(1)
    broken["decoder_embed.bias"] = torch.zeros(7)
    with pytest.raises(BackendError) as raised:
        load_networks(i2p, broken, sizes=tiny_sizes())
    message = str(raised.value)
    assert "missing: void_pe_token" in message
    assert "unexpected: surprise.weight" in message
    assert "decoder_embed.bias (7,) instead of (48,)" in message


def test_networks_given_in_the_wrong_order_are_refused(tiny_states: tuple[State, State]) -> None:
    i2p, l2w = tiny_states
    with pytest.raises(BackendError, match=r"ImageToPoints: missing: .* and \d+ more"):
        load_networks(l2w, i2p, sizes=tiny_sizes())


def test_an_encoder_inside_local_to_world_is_left_out(tiny_states: tuple[State, State]) -> None:
    i2p, l2w = tiny_states
    with_encoder = l2w | {k: v for k, v in i2p.items() if k.startswith("enc_blocks.")}
    assert len(with_encoder) > len(l2w)
    load_networks(i2p, with_encoder, sizes=tiny_sizes())


def test_a_training_checkpoint_loads_like_its_tensors(
    tmp_path: Path, tiny_states: tuple[State, State]
) -> None:
    paths = []
    for name, state in zip(("i2p", "l2w"), tiny_states, strict=True):
        paths.append(tmp_path / f"{name}.pth")
        content = {"model": state, "args": argparse.Namespace(lr=5e-5), "epoch": 3}
        torch.save(content, paths[-1])
    networks = load_networks(*paths, sizes=tiny_sizes())
    expected = tiny_networks().image_to_points.state_dict()
    for key, tensor in networks.image_to_points.state_dict().items():
        assert torch.equal(tensor, expected[key])


class Intruder:
    """An object whose unpickling would run code."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (Path, ("never",))


def test_a_checkpoint_that_would_run_code_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bad.pth"
    torch.save({"model": Intruder()}, path)
    with pytest.raises(BackendError, match="other things than tensors"):
        read_checkpoint(path)


@pytest.mark.parametrize("name", ["cut.safetensors", "cut.pth"])
def test_a_file_cut_short_is_refused_with_advice(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    state = {"a": torch.zeros(1000)}
    if path.suffix == ".pth":
        torch.save({"model": state}, path)
    else:
        save_file(state, path)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(BackendError, match=r"cut\..*make weights"):
        read_checkpoint(path)


@pytest.mark.parametrize("sizes", ["large", "null", '{"encoder_dim": 64}'])
def test_a_file_that_says_other_things_for_its_sizes_is_refused_with_advice(
    tmp_path: Path, sizes: str
) -> None:
    path = tmp_path / "odd.safetensors"
    save_file({"a": torch.zeros(3)}, path, {METADATA_KEY: sizes})
    with pytest.raises(BackendError, match=r"odd\.safetensors cannot be read.*make weights"):
        read_checkpoint(path)


def test_a_checkpoint_without_tensors_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "empty.pth"
    torch.save({"model": {"epoch": 3}}, path)
    with pytest.raises(BackendError, match="no tensors under the key 'model'"):
        read_checkpoint(path)


def test_a_file_may_carry_its_sizes(tmp_path: Path, tiny_states: tuple[State, State]) -> None:
    paths = [tmp_path / "i2p.safetensors", tmp_path / "l2w.safetensors"]
    for path, state in zip(paths, tiny_states, strict=True):
        save_file(state, path, {METADATA_KEY: tiny_sizes().to_json()})
    assert load_networks(*paths).sizes == tiny_sizes()
