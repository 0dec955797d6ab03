# SPDX-License-Identifier: Apache-2.0
"""Windows of Depth Anything 3 become one world; its own code runs, small, with random weights."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
from tiny_da3 import (
    CAMERA,
    TruthfulNetwork,
    frame,
    tiny_nested_network,
    tiny_network,
    true_pose,
)

from worldsystem_core.errors import BackendError, WeightsMissing
from worldsystem_core.frames import Frame
from worldsystem_core.geometry.sim3 import fit_sim3
from worldsystem_core.reconstruction import NewKeyframe, Pose, TrackingState
from worldsystem_slam3r.backend import open_backend
from worldsystem_slam3r.catalogue import backend_states
from worldsystem_slam3r.config import Slam3rConfig
from worldsystem_slam3r.da3 import backend as da3_backend
from worldsystem_slam3r.da3.backend import Da3Backend
from worldsystem_slam3r.da3.pace import Pace
from worldsystem_slam3r.da3.package import described, package_problem
from worldsystem_slam3r.da3.variants import VARIANTS, Da3Weights, choose, find_da3
from worldsystem_slam3r.session.restartable import RenewableBackend

needs_package = pytest.mark.skipif(bool(package_problem()), reason=package_problem() or "there")


def run(network, count: int, **settings):
    config = Slam3rConfig(backend="da3", synchronous=True, **settings)
    backend = Da3Backend(network, config)
    events = [event for n in range(count) for event in backend.feed(frame(n))]
    return backend, events + backend.finish()


def test_windows_with_units_of_their_own_become_one_world():
    network = TruthfulNetwork()
    _, events = run(network, 40, da3_window=6, da3_overlap=3)
    poses = [event for event in events if isinstance(event, Pose)]
    assert [pose.frame_id for pose in poses] == list(range(40))
    found = np.array([pose.world_from_cam[:3, 3] for pose in poses])
    wanted = np.array([true_pose(n)[:3, 3] for n in range(40)])
    fit = fit_sim3(wanted, found)
    assert np.abs(fit.apply(found) - wanted).max() < 2e-3  # float32 depths
    assert np.allclose(poses[0].world_from_cam, np.eye(4), atol=1e-6)
    assert len({pose.submap for pose in poses}) == 1


def test_keyframes_hold_points_in_the_unit_of_the_world():
    _, events = run(TruthfulNetwork(), 20, da3_window=6, da3_overlap=3)
    keyframes = [event.keyframe for event in events if isinstance(event, NewKeyframe)]
    assert [keyframe.id for keyframe in keyframes] == list(range(len(keyframes)))
    size = keyframes[0].pointmap[0, 0, 2] / keyframes[-1].pointmap[0, 0, 2]
    wanted = (3.0 - true_pose(0)[1, 3]) / (3.0 - true_pose(keyframes[-1].frame_id)[1, 3])
    assert abs(size / wanted - 1) < 0.3  # the same unit, though seen a little aslant
    assert all(keyframe.camera == CAMERA for keyframe in keyframes)


def test_each_window_shares_pictures_with_the_one_before():
    network = TruthfulNetwork()
    run(network, 24, da3_window=6, da3_overlap=3)
    assert len(network.calls) > 2
    for before, after in zip(network.calls, network.calls[1:], strict=False):
        assert before[-3:] == after[:3]


def test_frames_between_the_pictures_get_poses_between_theirs():
    backend, events = run(TruthfulNetwork(), 31, da3_window=4, da3_overlap=2, keyframe_stride=3)
    poses = {event.frame_id: event for event in events if isinstance(event, Pose)}
    keyframes = [e.keyframe.frame_id for e in events if isinstance(e, NewKeyframe)]
    assert keyframes == list(range(0, 31, 3))
    assert sorted(poses) == list(range(31))
    middle = poses[10].world_from_cam[:3, 3]
    ends = [poses[n].world_from_cam[:3, 3] for n in (9, 12)]
    assert np.allclose(middle, (2 * ends[0] + ends[1]) / 3, atol=1e-9)
    assert backend.pace.skipped == 20


def test_a_slow_network_looks_at_fewer_frames():
    pace = Pace(0, 1, 30)
    pace.learn(window_s=2.0, fresh=4, frame_s=0.1)
    assert pace.step == 5  # 4 pictures in 2 s, frames every 0.1 s
    for _ in range(10):
        pace.learn(window_s=0.1, fresh=4, frame_s=0.1)
    assert pace.step == 1
    fixed = Pace(3, 1, 30)
    fixed.learn(window_s=9.0, fresh=4, frame_s=0.1)
    assert fixed.step == 3


class Slowed(TruthfulNetwork):
    """Takes 1.9 s for each window, by a clock of its own."""

    now_s = 0.0

    def see(self, pictures):
        self.now_s += 1.9
        return super().see(pictures)


def test_the_pace_is_that_of_the_pictures_that_come_however_they_are_numbered(monkeypatch):
    """Across processes the id is the stamp; in one, pictures that were let go leave gaps."""

    def step(number_of: Callable[[Frame], int]) -> int:
        network = Slowed()
        clock = SimpleNamespace(perf_counter=lambda: network.now_s)
        monkeypatch.setattr(da3_backend, "time", clock)
        backend = Da3Backend(network, Slam3rConfig(backend="da3", da3_window=8, da3_overlap=4))
        for n in range(40):
            backend.feed(replace(frame(n), id=number_of(frame(n))))
        return backend.pace.step

    # 4 new pictures in 1.9 s, frames every 0.1 s: each fifth
    assert step(lambda seen: seen.id) == 5
    assert step(lambda seen: seen.stamp_ns) == 5
    assert step(lambda seen: 3 * seen.id) == 5


def test_a_window_that_fits_nowhere_begins_a_new_submap():
    network = TruthfulNetwork()
    truthful = network._view

    def broken(number, window_from_world):
        view = truthful(number, window_from_world)
        if len(network.calls) >= 3:  # every depth is another one, from one call to the next
            view.depth[:] = np.random.default_rng(number + len(network.calls)).uniform(
                0.5, 5, view.depth.shape
            )
        return view

    network._view = broken
    _, events = run(network, 30, da3_window=6, da3_overlap=3)
    poses = [event for event in events if isinstance(event, Pose)]
    assert [pose.frame_id for pose in poses] == list(range(30))
    assert max(pose.submap for pose in poses) > 0


class Stacking(TruthfulNetwork):
    """As the true one, it sees pictures of one shape alone together."""

    def see(self, pictures):
        np.stack(pictures)
        return super().see(pictures)


def test_pictures_of_another_shape_begin_a_new_window_and_sub_map():
    config = Slam3rConfig(backend="da3", synchronous=True, da3_window=6, da3_overlap=3)
    backend = Da3Backend(Stacking(), config)
    frames = [frame(n) for n in range(26)]
    turned = [replace(each, rgb=np.swapaxes(each.rgb, 0, 1).copy()) for each in frames[13:]]
    events = [event for each in [*frames[:13], *turned] for event in backend.feed(each)]
    events += backend.finish()
    poses = {event.frame_id: event for event in events if isinstance(event, Pose)}
    assert sorted(poses) == list(range(26))
    assert [poses[n].submap for n in range(26)] == 13 * [0] + 13 * [1]
    assert all(pose.state is TrackingState.TRACKED for pose in poses.values())
    assert np.allclose(poses[13].world_from_cam, np.eye(4), atol=1e-6)  # an origin of its own
    keyframes = [event.keyframe for event in events if isinstance(event, NewKeyframe)]
    assert [keyframe.id for keyframe in keyframes] == list(range(26))


def test_a_window_that_the_network_fails_at_is_lost_and_the_next_is_no_larger():
    network, events = TruthfulNetwork(), []
    config = Slam3rConfig(backend="da3", synchronous=True, da3_window=6, da3_overlap=3)
    backend, see = Da3Backend(network, config), network.see
    for n in range(30):
        network.see = out_of_memory if n == 11 else see
        with pytest.raises(MemoryError) if n == 11 else nullcontext():
            events += backend.feed(frame(n))
    events += backend.finish()
    assert [min(call) for call in network.calls] == [0, 3, 12, 15, 18, 21, 24]
    assert max(map(len, network.calls)) == 6
    poses = {event.frame_id: event for event in events if isinstance(event, Pose)}
    assert sorted(poses) == [n for n in range(30) if n != 11]  # of which the error tells
    lost = [n for n, pose in poses.items() if pose.state is TrackingState.LOST]
    assert lost == [9, 10]
    assert [poses[n].submap for n in range(30) if n != 11] == 11 * [0] + 18 * [1]


def out_of_memory(_):
    raise MemoryError


@pytest.mark.parametrize("overlap", [3, 4, 32])
def test_each_window_has_a_new_picture_however_many_it_is_to_share(overlap):
    network = TruthfulNetwork()
    run(network, 12, da3_window=4, da3_overlap=overlap)
    assert [len(call) for call in network.calls] == 9 * [4]


def test_a_reset_keeps_the_network_that_is_loaded():
    network = TruthfulNetwork()
    config = Slam3rConfig(backend="da3", synchronous=True, da3_window=6, da3_overlap=3)
    backend = RenewableBackend(Da3Backend(network, config), None)
    old = [event for n in range(8) for event in backend.feed(frame(n))]
    backend.begin_anew(lambda: pytest.fail("it was loaded again"))
    new = [event for n in range(8, 20) for event in backend.feed(frame(n))] + backend.finish()
    assert all(min(call) >= 8 for call in network.calls if max(call) >= 8)
    poses = [event for event in new if isinstance(event, Pose)]
    assert [pose.frame_id for pose in poses] == list(range(8, 20))
    assert np.allclose(poses[0].world_from_cam, np.eye(4), atol=1e-6)
    assert {pose.submap for pose in old + new if isinstance(pose, Pose)} == {0, poses[0].submap}
    ids = [event.keyframe.id for event in old + new if isinstance(event, NewKeyframe)]
    assert ids == sorted(set(ids))


def test_a_few_frames_alone_still_get_their_poses():
    _, events = run(TruthfulNetwork(), 2)
    poses = [event for event in events if isinstance(event, Pose)]
    assert [pose.state for pose in poses] == [TrackingState.TRACKED] * 2
    assert run(TruthfulNetwork(), 0)[1] == []


def test_too_little_memory_takes_a_smaller_network_and_says_what_is_lost(tmp_path):
    there = [Da3Weights(VARIANTS[name], tmp_path / name) for name in ("giant", "base")]
    taken, note = choose("giant", there, int(80e9), tmp_path)
    assert (taken.variant.name, note) == ("giant", "")
    taken, note = choose("giant", there, int(6e9), tmp_path)
    assert taken.variant.name == "base"
    assert "'base' runs instead" in note
    assert "predicts no Gaussians" in note
    with pytest.raises(BackendError, match="needs 3 GB"):
        choose("giant", there, int(1e9), tmp_path)
    with pytest.raises(BackendError, match="known: auto, small"):
        choose("huge", there, None, tmp_path)
    with pytest.raises(WeightsMissing):
        choose("small", there, None, tmp_path)


def test_weights_are_found_where_they_are_published(tmp_path):
    assert find_da3(str(tmp_path)) == []
    for place in ("da3/DA3-GIANT-1.1/model.safetensors", "da3/base.safetensors"):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).write_bytes(b"x")
    assert [item.variant.name for item in find_da3(str(tmp_path))] == ["giant", "base"]


def test_the_list_of_back_ends_shows_its_licences(tmp_path):
    state = next(s for s in backend_states(Slam3rConfig(weights=str(tmp_path))) if s.name == "da3")
    assert not state.runs
    assert "CC BY-NC 4.0" in state.licence
    assert "Apache-2.0" in state.licence
    with pytest.raises((WeightsMissing, BackendError), match="da3"):
        open_backend("da3", Slam3rConfig(backend="da3", weights=str(tmp_path)))


@needs_package
def test_the_packages_own_network_runs_with_random_weights_and_gives_gaussians():
    from worldsystem_slam3r.da3.network import Da3Network

    network = Da3Network(tiny_network(), device="cpu", long_side_px=84, metric=False)
    assert network.has_gaussians
    rng = np.random.default_rng(0)
    views = network.see([rng.integers(0, 255, (120, 160, 3), np.uint8) for _ in range(3)])
    assert len(views) == 3
    for view in views:
        assert view.rgb.shape == (56, 84, 3)  # multiples of 14
        assert view.depth.shape == view.confidence.shape == (56, 84)
        assert 0 <= view.confidence.min() <= view.confidence.max() <= 1
        turn = view.window_from_cam[:3, :3]
        assert np.allclose(turn @ turn.T, np.eye(3), atol=1e-4)
        assert view.gaussians is not None
        assert 0 < len(view.gaussians) <= 52 * 80
        assert np.allclose(np.linalg.norm(view.gaussians.rotations, axis=1), 1, atol=1e-3)
        assert view.gaussians.opacities.min() > 0.05


@needs_package
def test_the_nested_networks_gaussians_are_as_far_away_as_its_depths():
    from worldsystem_slam3r.da3.network import Da3Network

    network = Da3Network(tiny_nested_network(), device="cpu", long_side_px=84, metric=True)
    assert network.has_gaussians
    rng = np.random.default_rng(0)
    for view in network.see([rng.integers(0, 255, (120, 160, 3), np.uint8) for _ in range(3)]):
        assert view.gaussians is not None
        distance = np.median(view.gaussians.means[:, 2])
        assert distance == pytest.approx(np.median(view.depth), rel=0.3)  # each has an offset


@needs_package
def test_weights_on_disk_are_loaded_by_path_and_foreign_ones_refused(tmp_path, monkeypatch):
    import torch
    from safetensors.torch import save_file

    from worldsystem_slam3r.da3 import network as da3_network

    monkeypatch.setattr(da3_network, "build", lambda _: tiny_network())
    state = {f"model.{key}": value.clone() for key, value in tiny_network().state_dict().items()}
    path = tmp_path / "da3" / "small.safetensors"
    path.parent.mkdir()
    save_file(state, path)
    (weights,) = find_da3(str(tmp_path))
    loaded = da3_network.Da3Network.load(weights, device="cpu", long_side_px=84)
    assert loaded.has_gaussians
    save_file({"something": torch.zeros(3)}, path)
    with pytest.raises(BackendError, match="values are missing"):
        da3_network.Da3Network.load(weights, device="cpu", long_side_px=84)


@needs_package
@pytest.mark.parametrize("damage", ["cut short", "of another size"])
def test_da3_weights_cut_short_or_of_another_size_are_refused_with_advice(
    tmp_path, monkeypatch, damage
):
    import torch
    from safetensors.torch import save_file

    from worldsystem_slam3r.da3 import create, network

    monkeypatch.setattr(network, "build", lambda _: tiny_network())
    monkeypatch.setattr(create, "free_memory_bytes", lambda: None)
    state = {f"model.{key}": value.clone() for key, value in tiny_network().state_dict().items()}
    if damage == "of another size":
        state[next(iter(state))] = torch.zeros(3, 5, 7, 11)
    path = tmp_path / "da3" / "small.safetensors"
    path.parent.mkdir()
    save_file(state, path)
    if damage == "cut short":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    config = Slam3rConfig(backend="da3", device="cpu", weights=str(tmp_path))
    with pytest.raises(BackendError, match=r"cannot be read as 'small'.*\"--da3 small\"") as raised:
        open_backend("da3", config)
    assert str(raised.value).startswith(str(path))
    opened = open_backend("da3", replace(config, fallback=True))
    assert opened.name == "geometric"
    assert str(path) in opened.note
    opened.backend.close()


@needs_package
@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
def test_every_variant_can_be_built(variant, monkeypatch):
    import torch

    from worldsystem_slam3r.da3.network import Da3Network

    # of these the package reads the values
    monkeypatch.setattr(torch, "linspace", partial(torch.linspace, device="cpu"))
    with torch.device("meta"):  # shapes alone: the largest has 1.4 billion parameters
        network = Da3Network.random(variant, device="meta", long_side_px=84)
    assert network.has_gaussians == variant.gaussians
    millions = sum(weight.numel() for weight in network._network.parameters()) / 1e6
    assert millions == pytest.approx(variant.millions, rel=0.25)


@needs_package
@pytest.mark.parametrize("name", ["da3-small", "da3-giant", "da3nested-giant-large"])
def test_numbers_of_a_published_configuration_are_numbers(name):
    """PyYAML takes `1e-5` for a text."""
    texts, open_ = [], [described(name)]
    while open_:
        item = open_.pop()
        if isinstance(item, dict | list):
            open_ += item.values() if isinstance(item, dict) else item
        elif isinstance(item, str):
            texts.append(item)
    assert texts
    assert not any(text[0].isdigit() for text in texts)


@needs_package
def test_the_package_brings_nothing_else_along():
    tiny_network()
    for name in ("omegaconf", "addict", "e3nn", "torchvision", "xformers"):
        assert not getattr(sys.modules.get(name), "__file__", None)
