# SPDX-License-Identifier: Apache-2.0
"""What the networks are taught must be true, and teaching must work."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from baselines import (
    as_a_reference,
    as_the_best_reference,
    constant_depth_points,
    constant_prediction,
)
from calibrate import settings_for
from losses import CONFIDENCE_WEIGHT, regression, relative_error
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from scenes import random_room, random_walk
from steps import disturbed, overlaps
from train import _take_up, save
from windows import (
    Clip,
    Views,
    film_room,
    film_rooms,
    reference_windows,
    world_windows,
)

from worldsystem_core.geometry.se3 import inverse
from worldsystem_slam3r.config import Slam3rConfig
from worldsystem_slam3r.model.i2p import ImageToPoints
from worldsystem_slam3r.model.l2w import LocalToWorld
from worldsystem_slam3r.model.sizes import METADATA_KEY, NetworkSizes

SIZE_PX = 32
SMALL = NetworkSizes(
    encoder_dim=32,
    encoder_depth=1,
    encoder_heads=2,
    decoder_dim=32,
    decoder_depth=2,
    decoder_heads=2,
)


@pytest.fixture(scope="module")
def clip() -> Clip:
    return film_room(3, 24, SIZE_PX)


def test_a_seed_gives_one_room_and_another_seed_another():
    first, again, other = random_room(5), random_room(5), random_room(6)
    assert np.array_equal(first.triangles.corners_m, again.triangles.corners_m)
    assert len(first.triangles.corners_m) != len(other.triangles.corners_m)


def test_the_camera_stays_inside_the_room_and_moves_smoothly():
    for seed in range(20):
        positions = random_walk(seed, 60)[:, :3, 3]
        room = random_room(seed)
        walls = np.abs(room.triangles.corners_m[..., :2]).reshape(-1, 2).max(axis=0)
        assert (np.abs(positions[:, :2]) < walls).all()
        assert (positions[:, 2] > 0.3).all()
        assert np.linalg.norm(np.diff(positions, axis=0), axis=1).max() < 0.5


def test_points_of_two_views_are_the_same_points_of_the_room(clip):
    """Where one view's point falls in another, that one sees it, or something nearer."""
    to_world = clip.points(0, np.eye(4))
    cam_from_world = inverse(clip.world_from_cam[2])
    seen = to_world[np.isfinite(to_world).all(axis=-1)]
    in_other = seen @ cam_from_world[:3, :3].T + cam_from_world[:3, 3]
    uv = in_other @ clip.K.T
    uv = np.round(uv[:, :2] / uv[:, 2:]).astype(int)
    inside = (in_other[:, 2] > 0.1) & (uv >= 0).all(axis=1) & (uv < SIZE_PX).all(axis=1)
    depth = clip.depth_m[2][uv[inside, 1], uv[inside, 0]]
    relative = (depth / in_other[inside, 2] - 1.0)[np.isfinite(depth)]
    assert len(relative) > 300
    assert np.median(np.abs(relative)) < 0.02
    assert (relative < 0.15).mean() > 0.9


def test_windows_are_in_units_of_their_mean_distance_and_zero_where_nothing_is(clip):
    rng = np.random.default_rng(0)
    for views in (
        reference_windows([clip], rng, batch=3, views=4),
        world_windows([clip], rng, batch=3, views=4),
    ):
        norms = views.points.norm(dim=-1)
        for window, valid in zip(norms, views.valid, strict=True):
            assert float(window[valid].mean()) == pytest.approx(1.0, rel=1e-4)
        assert float(views.points[~views.valid].abs().sum()) == 0.0
        assert views.images.min() >= -1.0
        assert views.images.max() <= 1.0


def test_the_first_view_of_a_window_is_its_frame(clip):
    views = reference_windows([clip], np.random.default_rng(1), batch=2, views=3)
    first, own = views.points[:, 0], views.own[:, 0]
    scale = (first.norm(dim=-1).sum((1, 2)) / own.norm(dim=-1).sum((1, 2)))[:, None, None, None]
    assert torch.allclose(first, own * scale, atol=1e-4)


def example(clip: Clip, views: int = 3) -> Views:
    return reference_windows([clip], np.random.default_rng(2), batch=2, views=views)


def test_a_perfect_prediction_has_no_error_at_any_scale(clip):
    views = example(clip)
    for scale in (0.1, 1.0, 7.0):
        loss = regression(scale * views.points, views.points, views.valid, normalise=True)
        assert float(loss) == pytest.approx(0.0, abs=1e-5)
        error = relative_error(scale * views.points, views.points, views.valid, normalise=False)
        assert error == pytest.approx(abs(scale - 1.0), abs=1e-4)


def test_the_best_confidence_falls_as_the_error_grows(clip):
    """The loss C·d − a·log C is least at C = a / d."""
    views = example(clip)

    def loss(confidence: float, offset: float) -> float:
        wrong = views.points + torch.tensor([offset, 0.0, 0.0])
        constant = torch.full_like(views.points[..., 0], confidence)
        return float(
            regression(wrong, views.points, views.valid, normalise=False, confidence=constant)
        )

    for error in (0.02, 0.1, 0.5):
        best = CONFIDENCE_WEIGHT / error
        assert loss(best, error) < min(loss(0.7 * best, error), loss(1.4 * best, error))


def test_pixels_without_truth_do_not_count(clip):
    views = example(clip)
    spoilt = torch.where(views.valid[..., None], views.points, torch.tensor(1e6))
    loss = regression(spoilt, views.points, views.valid, normalise=True)
    assert float(loss) == pytest.approx(0.0, abs=1e-5)
    nothing = torch.zeros_like(views.valid)
    assert float(regression(spoilt, views.points, nothing, normalise=True)) == 0.0


def test_a_view_overlaps_itself_wholly_and_others_less(clip):
    views = example(clip, 2)
    itself = Views(*(torch.stack([t[:, 0], t[:, 0]], 1) for t in vars(views).values()))
    assert overlaps(itself).min() == 1.0
    far = world_windows([clip], np.random.default_rng(4), batch=4, views=6)
    assert overlaps(far).min() < 0.9


def test_noise_leaves_unknown_points_at_zero_and_the_rest_near(clip):
    torch.manual_seed(0)
    views = example(clip)
    noisy = disturbed(views.points, 0.05)
    assert float(noisy[~views.valid].abs().sum()) == 0.0
    relative = (noisy - views.points).norm(dim=-1)[views.valid]
    assert 0.005 < float(relative.mean()) < 0.2


def test_a_flat_guess_is_flat_and_as_large_as_the_truth(clip):
    views = example(clip)
    plane = constant_depth_points(views.own, views.valid)
    assert float(plane[..., 2].std()) < 1e-5
    guess = constant_prediction(plane, views.valid)
    assert float(guess.norm(dim=-1)[views.valid].mean()) == pytest.approx(1.0, rel=0.05)


def test_a_source_that_stands_where_a_reference_does_is_placed_rightly(clip):
    """The third view is the second once more; only placed as that one is it right."""
    views = example(clip, 4)
    known = Views(*(tensor[:, [0, 1, 1, 2]] for tensor in vars(views).values()))

    def error(placed: torch.Tensor, view: int) -> float:
        one = slice(view, view + 1)
        return relative_error(
            placed[:, one], known.points[:, one], known.valid[:, one], normalise=False
        )

    first, second = (as_a_reference(known, 2, which) for which in (0, 1))
    assert error(second, 2) < 1e-4
    assert error(first, 2) > 1e-2
    best = as_the_best_reference(known, 2)
    assert error(best, 2) < 1e-4
    assert error(best, 3) <= min(error(first, 3), error(second, 3)) + 1e-6
    assert error(best, 0) == 0.0


def test_rooms_that_are_kept_come_back_as_they_were_filmed(tmp_path, clip):
    first = film_rooms(range(3, 4), 24, SIZE_PX, kept=tmp_path)[0]
    again = film_rooms(range(3, 4), 24, SIZE_PX, kept=tmp_path)[0]
    assert len(list(tmp_path.iterdir())) == 1
    for one in (first, again):
        for name in ("rgb", "depth_m", "world_from_cam", "K"):
            assert np.array_equal(getattr(one, name), getattr(clip, name), equal_nan=True)


def test_saved_networks_carry_their_sizes_and_every_parameter(tmp_path):
    save(tmp_path, ImageToPoints(SMALL), LocalToWorld(SMALL))
    for name, kind in (("i2p", ImageToPoints), ("l2w", LocalToWorld)):
        path = tmp_path / f"{name}.safetensors"
        with safe_open(path, "pt") as file:
            sizes = NetworkSizes.from_json(file.metadata()[METADATA_KEY])
        kind(sizes).load_state_dict(load_file(path), strict=True)
        assert json.loads(sizes.to_json())["encoder_dim"] == SMALL.encoder_dim


def test_thresholds_are_settings_of_the_back_end_and_follow_the_confidence(clip):
    torch.manual_seed(1)
    i2p, l2w = ImageToPoints(SMALL), LocalToWorld(SMALL)
    first = settings_for(i2p, l2w, [clip])
    Slam3rConfig(**first)
    assert 1.0 <= first["lost_confidence"] <= first["keyframe_confidence"]
    with torch.no_grad():
        for net in (i2p, l2w):
            for head in (net.downstream_head1, net.downstream_head2):
                head.proj.bias[3 * SMALL.patch_px**2 :] += 2.0
    surer = settings_for(i2p, l2w, [clip])
    assert all(surer[name] > first[name] for name in first)


def test_a_run_of_other_sizes_is_not_taken_up_and_says_so(tmp_path):
    for name in ("i2p", "l2w"):
        save_file(torch.nn.Linear(3, 3).state_dict(), tmp_path / f"{name}.safetensors")
    smaller = SimpleNamespace(i2p=torch.nn.Linear(2, 2), l2w=torch.nn.Linear(2, 2))
    with pytest.raises(SystemExit, match="other sizes; give the --sizes of its card"):
        _take_up(smaller, tmp_path)
