# SPDX-License-Identifier: Apache-2.0
"""Replayed CUDA graphs give what the plain computation gives; so does the benchmark's twin."""

from __future__ import annotations

import importlib.util
import threading
from pathlib import Path
from types import ModuleType

import pytest
import torch
from golden import assert_as_golden, golden_folder, tiny_networks, tiny_sizes
from safetensors.torch import load_file

from worldsystem_core import cuda_graphs as graphs
from worldsystem_slam3r.model.loading import load_networks
from worldsystem_slam3r.model.networks import Networks


def random_views(count: int, device: str = "cpu") -> tuple[torch.Tensor, torch.Tensor]:
    noise = torch.Generator().manual_seed(5)
    tokens = torch.randn(count, 16, 64, generator=noise)
    return tokens.to(device), torch.randn(count, 64, 64, 3, generator=noise).to(device)


def networks_on(device: str, *, graphs: bool = False, compiled: bool = False) -> Networks:
    states = [load_file(golden_folder() / f"{net}_tiny.safetensors") for net in ("i2p", "l2w")]
    return load_networks(
        *states, sizes=tiny_sizes(), device=device, graphs=graphs, compiled=compiled
    )


def results(networks: Networks, views: int) -> list[torch.Tensor]:
    """Every call that may be replayed, on inputs that depend on the number of views."""
    tokens, points = random_views(views, str(networks.device))
    images = torch.linspace(-1, 1, 3 * 64 * 64, device=networks.device).view(1, 3, 64, 64)
    known = networks.l2w_references(tokens[:-1], points[:-1])
    outputs = [
        networks.encode(images),
        *networks.i2p_reference(tokens[0], networks.i2p_sources(tokens[1:])),
        *networks.l2w_sources(known, tokens[-1:], points[-1:]),
    ]
    return [output.cpu() for output in outputs]


def test_graphs_change_nothing_on_a_cpu() -> None:
    for plain, asked in zip(
        results(tiny_networks(), 4), results(networks_on("cpu", graphs=True), 4), strict=True
    ):
        assert torch.equal(plain, asked)


ON_A_CARD = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device"),
]


@pytest.mark.slow
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=ON_A_CARD)])
def test_compiled_blocks_give_the_plain_results(device: str) -> None:
    compiled, plain = networks_on(device, compiled=True), networks_on(device)
    for one, other in zip(results(compiled, 4), results(plain, 4), strict=True):
        assert_as_golden(one, other.numpy())


class Recorded:
    """Stands in for a CUDA graph: replaying computes the outputs again from the kept inputs."""

    def __init__(self, computation: graphs.Computation, inputs: list[torch.Tensor]) -> None:
        self.inputs = inputs
        self.outputs = computation("x", *inputs)
        self._computation = computation

    def replay(self) -> None:
        for kept, fresh in zip(self.outputs, self._computation("x", *self.inputs), strict=True):
            kept.copy_(fresh)


@pytest.fixture
def replayed(monkeypatch: pytest.MonkeyPatch) -> graphs.Replayed:
    """A computation whose recordings are made without a GPU."""

    def recorded(
        self: graphs.Replayed, setting: object, tensors: tuple[torch.Tensor, ...]
    ) -> graphs.Recording:
        stand_in = Recorded(self._computation, [tensor.clone() for tensor in tensors])
        return graphs.Recording(stand_in, stand_in.inputs, stand_in.outputs, graphs.Constants())

    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: None)
    monkeypatch.setattr(graphs.Replayed, "_recorded", recorded)
    return graphs.Replayed(lambda setting, a, b: (a + b, a * b))


def test_a_replay_takes_the_new_inputs_and_leaves_earlier_results_alone(
    replayed: graphs.Replayed,
) -> None:
    first = replayed("x", torch.ones(3), torch.ones(3))
    second = replayed("x", torch.full((3,), 5.0), torch.full((3,), 2.0))
    assert [float(output[0]) for output in first] == [2.0, 1.0]
    assert [float(output[0]) for output in second] == [7.0, 10.0]


def test_each_shape_is_recorded_once_and_their_number_is_bounded(
    replayed: graphs.Replayed,
) -> None:
    for length in range(1, graphs.MOST_SHAPES + 5):
        for _ in range(2):
            total, _ = replayed("x", torch.ones(length), torch.ones(length))
            assert total.shape == (length,)
    assert len(replayed._recordings) == graphs.MOST_SHAPES


def test_where_recording_fails_the_computation_runs_plainly_and_says_so_once(
    replayed: graphs.Replayed, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError("no graphs on this device")

    monkeypatch.setattr(graphs.Replayed, "_recorded", fails)
    for length in (1, 2):
        assert float(replayed("x", torch.ones(length), torch.ones(length))[0][0]) == 2.0
    assert len(caplog.records) == 1
    assert "no graphs on this device" in caplog.text


def test_tensors_of_plain_numbers_are_made_once_and_given_as_copies() -> None:
    constants = graphs.Constants()

    def computation() -> list[torch.Tensor]:
        sizes = torch.as_tensor([(2, 3), (4, 5)], dtype=torch.long)
        given = torch.tensor(torch.ones(2).tolist())
        return [sizes.mul_(2), given, torch.tensor(7)]

    with constants:
        first = computation()
        made = dict(constants._made)
        second = computation()
    assert constants._made.keys() == made.keys()
    for one, other, plain in zip(first, second, computation(), strict=True):
        assert torch.equal(one, plain)
        assert torch.equal(other, plain)
        assert one.dtype == plain.dtype


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device")
def test_replayed_graphs_give_the_plain_results() -> None:
    recorded, plain = (networks_on("cuda", graphs=graphs) for graphs in (True, False))
    for views in (4, 6, 4):
        pairs = zip(results(recorded, views), results(plain, views), strict=True)
        for replay, direct in pairs:
            assert_as_golden(replay, direct.numpy())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device")
def test_a_computation_that_makes_tensors_of_numbers_is_recorded(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def computation(setting: object, values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        sizes = torch.tensor([values.shape[0], 3.0], device=values.device)
        return (values * sizes.sum(),)

    replayed = graphs.Replayed(computation)
    for number in (1.0, 2.0):
        [result] = replayed("x", torch.full((5,), number, device="cuda"))
        assert result.tolist() == [8.0 * number] * 5
    assert "cannot be recorded" not in caplog.text


@pytest.fixture
def naive() -> ModuleType:
    path = Path(__file__).parents[2] / "benchmarks" / "slam3r_naive.py"
    spec = importlib.util.spec_from_file_location("slam3r_naive", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_plain_twin_of_the_benchmark_computes_the_same(naive: ModuleType) -> None:
    states = [load_file(golden_folder() / f"{net}_tiny.safetensors") for net in ("i2p", "l2w")]
    twin, networks = naive.NaiveNetworks(*states, (4, 2)), tiny_networks()
    tokens, points = random_views(5)
    images = torch.linspace(-1, 1, 2 * 3 * 64 * 64).view(2, 3, 64, 64)
    assert_as_golden(networks.encode(images), twin.encode(images).numpy())
    assert_as_golden(networks.i2p(tokens, 0).points, twin.i2p(tokens, 0)[0].numpy())
    moved = networks.l2w(tokens[:3], points[:3], tokens[3:], points[3:])
    plain, confidence = twin.l2w(tokens[:3], points[:3], tokens[3:], points[3:])
    assert_as_golden(torch.cat(moved[:2]), plain.numpy())
    assert_as_golden(moved[2], confidence[3:].numpy())
    scores = networks.retrieval_scores(tokens[:1], tokens[1:])
    assert_as_golden(scores, twin.retrieval_scores(tokens[:1], tokens[1:]).numpy())


def test_while_one_thread_records_another_runs_plainly_and_records_later(
    replayed: graphs.Replayed, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded = graphs.Replayed._recorded
    begun, go_on = threading.Event(), threading.Event()

    def slowly(self: graphs.Replayed, setting: object, tensors: tuple[torch.Tensor, ...]) -> object:
        begun.set()
        assert go_on.wait(3.0), "two record at once"
        return recorded(self, setting, tensors)

    monkeypatch.setattr(graphs.Replayed, "_recorded", slowly)
    other = graphs.Replayed(lambda setting, a: (2 * a,))
    first = threading.Thread(target=replayed, args=("x", torch.ones(3), torch.ones(3)))
    first.start()
    try:
        assert begun.wait(3.0)
        [meanwhile] = other("x", torch.ones(3))
    finally:
        go_on.set()
        first.join(10.0)
    assert float(meanwhile[0]) == 2.0
    assert len(other._recordings) == 0
    [later] = other("x", torch.full((3,), 4.0))
    assert float(later[0]) == 8.0
    assert len(other._recordings) == len(replayed._recordings) == 1
