# SPDX-License-Identifier: Apache-2.0
"""Whole pipelines against the golden runs: the same decisions, the same points."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from golden import assert_as_golden, golden_arrays, golden_folder, tiny_networks
from golden_pipeline import Noting, video

from worldsystem_slam3r.slam3r.live import LiveScene, LiveSettings
from worldsystem_slam3r.slam3r.offline import OfflineScene, OfflineSettings
from worldsystem_slam3r.slam3r.scene_start import find_start
from worldsystem_slam3r.slam3r.stride import stride_of_video
from worldsystem_slam3r.slam3r.views import View


def traces() -> dict[str, Any]:
    """Parameters and decisions of the golden runs."""
    return dict(json.loads((golden_folder() / "pipeline_trace.json").read_text()))


def _offline(run: str, networks: Noting, frames: torch.Tensor) -> tuple[OfflineScene, list[View]]:
    params = traces()[run]["params"]
    settings = OfflineSettings(
        keyframe_stride=max(0, params["keyframe_stride"]),
        stride_max=params["keyframe_adapt_max"],
        initial_window=params["initial_winsize"],
        window_radius=params["win_r"],
        scene_frames=params["num_scene_frame"],
        register_together=3 if run == "offline_coregister_norm" else 1,
        local_confidence=params["conf_thres_i2p"],
        normalise=params["norm_input"],
        buffer_frames=params["buffer_size"],
        buffer_strategy=params["buffer_strategy"],
    )
    scene = OfflineScene(networks, lambda i: frames[i], len(frames), settings)
    return scene, list(scene.run())


def _online(run: str, networks: Noting, frames: torch.Tensor) -> list[View]:
    params = traces()[run]["params"]
    settings = LiveSettings(
        neighbours=params["win_r"],
        scene_frames=params["num_scene_frame"],
        retrieve_every=params["retrieve_freq"],
        start_together=1,
        local_confidence=params["conf_thres_i2p"],
        buffer_frames=params["buffer_size"],
        buffer_strategy=params["buffer_strategy"],
    )
    scene = LiveScene(networks, settings)
    stride = params["keyframe_stride"]
    first = (params["initial_winsize"] - 1) * stride + 1
    views = [View(i, tokens) for i, tokens in enumerate(networks.encode(frames))]
    keys = views[:first:stride]
    start = find_start(networks, [view.tokens for view in keys], wanted_score=0.0)
    scene.begin(keys, [v for v in views[:first] if v.index % stride], start, stride)
    for view in views[first:]:
        scene.register(scene.references([view]), [view])
        scene.accept([view], view.index + 1)
    return views


def _assert_same_world(views: list[View], run: str, arrays: Any) -> None:
    assert [view.index for view in views] == list(range(len(arrays["img_u8"])))
    points = torch.stack([view.world_points[::8, ::8] for view in views]).numpy()
    confidence = torch.stack([view.world_confidence[::8, ::8] for view in views]).numpy()
    assert_as_golden(points, arrays[f"{run}/registered_pts_stride8"])
    assert_as_golden(confidence, arrays[f"{run}/registered_conf_stride8"])
    scores = [view.world_score for view in views]
    np.testing.assert_allclose(scores, arrays[f"{run}/registered_conf_mean"], atol=1e-5)


@pytest.mark.parametrize(
    "run", ["offline_reservoir", "offline_fifo_autostride", "offline_coregister_norm"]
)
def test_the_offline_pipeline_decides_and_places_as_the_golden_run(run):
    arrays, trace = golden_arrays("pipeline"), traces()[run]
    frames = video("pipeline")
    networks = Noting(tiny_networks(), frames)
    scene, views = _offline(run, networks, frames)
    assert scene.stride == trace["meta"]["kf_stride"]
    assert networks.registrations == trace["l2w_calls"]
    _assert_same_world(views, run, arrays)
    initial = set(scene.keyframes[: trace["meta"]["init_winsize"]])
    for view in views:
        if view.index not in initial:  # the golden local scores of those carry another factor
            wanted = arrays[f"{run}/local_conf_mean"][view.index]
            assert view.local_score == pytest.approx(wanted, abs=1e-5)


@pytest.mark.parametrize("run", ["online_fixed", "online_fixed_freq3"])
def test_the_streaming_pipeline_decides_and_places_as_the_golden_run(run):
    arrays, trace = golden_arrays("pipeline"), traces()[run]
    frames = video("pipeline")
    networks = Noting(tiny_networks(), frames)
    views = _online(run, networks, frames)
    assert networks.registrations == trace["l2w_calls"]
    _assert_same_world(views, run, arrays)


@pytest.mark.parametrize("run", ["online_upstream_bug", "online_upstream_bug_freq3"])
def test_the_streaming_pipeline_does_not_share_the_published_faults(run):
    trace = traces()[run]
    frames = video("pipeline")
    networks = Noting(tiny_networks(), frames)
    _online(run, networks, frames)
    assert networks.registrations != trace["l2w_calls"]
    params = trace["params"]
    longest = max(len(call["ref_frame_ids"]) for call in networks.registrations)
    assert longest <= max(params["initial_winsize"], params["num_scene_frame"] + params["win_r"])


def test_the_stride_of_a_video_is_the_golden_one():
    arrays = golden_arrays("keyframe_stride")
    networks, frames = tiny_networks(), video("keyframe_stride")
    tokens = networks.encode(frames)
    scores: list[float] = []
    stride = stride_of_video(
        networks,
        lambda indices: tokens[list(indices)],
        len(frames),
        np.random.RandomState(42),
        strides=range(1, 21),
        scores=scores,
    )
    assert stride == int(arrays["best_stride"])
    np.testing.assert_allclose(scores, arrays["conf_mean_per_stride"], atol=1e-5)


@pytest.mark.parametrize(("wanted", "key"), [(5.0, "thres5"), (1.0, "thres1")])
def test_a_scene_starts_with_the_golden_window_and_reference(wanted, key):
    arrays = golden_arrays("keyframe_stride")
    networks = tiny_networks()
    tokens = networks.encode(video("keyframe_stride")[0:9:2])
    start = find_start(networks, list(tokens), wanted_score=wanted)
    assert len(start) == int(arrays[f"init/winsize_used_{key}"])
    assert start.reference == int(arrays[f"init/ref_id_{key}"])
    expected = arrays[f"init/mean_conf_per_ref_w{len(start)}"].max()
    assert start.score == pytest.approx(expected, abs=1e-5)


def test_a_video_shorter_than_a_window_has_stride_one():
    networks = tiny_networks()
    rng = np.random.RandomState(0)
    assert stride_of_video(networks, lambda _: None, 6, rng, strides=range(1, 21)) == 1
