# SPDX-License-Identifier: Apache-2.0
"""The parts of the networks: position code, head, scale, pictures, keys."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest
import torch
from golden import assert_as_golden, golden_arrays, golden_folder

from worldsystem_core.errors import BackendError
from worldsystem_slam3r.model.heads import activate, unshuffle_patches
from worldsystem_slam3r.model.i2p import ImageToPoints
from worldsystem_slam3r.model.l2w import LocalToWorld
from worldsystem_slam3r.model.preprocess import Crop, network_picture, normalised
from worldsystem_slam3r.model.rope import rotate, rotation
from worldsystem_slam3r.model.sizes import PUBLISHED, NetworkSizes
from worldsystem_slam3r.slam3r.views import mean_distance

PICTURES = [
    (640, 360), (1280, 720), (360, 640), (641, 479), (200, 150),
    (225, 224), (224, 224), (1920, 1080), (320, 1000),
]  # fmt: skip


@pytest.mark.parametrize("case", ["a", "b", "c"])
def test_the_position_code_turns_head_vectors_as_published(case: str) -> None:
    golden = golden_arrays("rope2d")
    tokens = torch.from_numpy(golden[f"{case}/tokens"])
    positions = torch.from_numpy(golden[f"{case}/positions_yx"])
    tables = rotation(positions[:, None], tokens.shape[-1], 100.0)
    assert_as_golden(rotate(tokens, tables), golden[f"{case}/out"], 1e-5)


def test_the_position_code_keeps_lengths_and_depends_on_differences_only() -> None:
    noise = torch.Generator().manual_seed(1)
    q, k = torch.randn(2, 1, 64, generator=noise)

    def product(at_q: tuple[int, int], at_k: tuple[int, int]) -> float:
        tables = [rotation(torch.tensor([at]), 64, 100.0) for at in (at_q, at_k)]
        return float((rotate(q[None], tables[0]) * rotate(k[None], tables[1])).sum())

    turned = rotate(q[None], rotation(torch.tensor([(5, 9)]), 64, 100.0))
    assert float(turned.norm()) == pytest.approx(float(q.norm()), rel=1e-6)
    assert product((3, 4), (1, 7)) == pytest.approx(product((8, 4), (6, 7)), rel=1e-4)
    assert product((3, 4), (1, 7)) != pytest.approx(product((3, 4), (2, 7)), rel=1e-2)


def test_the_head_turns_channels_into_points_and_confidence() -> None:
    golden = golden_arrays("geometry")
    points, confidence = activate(
        torch.from_numpy(golden["xyz_raw"]), torch.from_numpy(golden["conf_raw"])
    )
    assert_as_golden(points, golden["pts3d"])
    assert_as_golden(confidence, golden["conf"])
    assert torch.isfinite(points).all()


def test_pixels_leave_a_token_channel_by_channel() -> None:
    golden = golden_arrays("geometry")
    tokens = torch.from_numpy(golden["shuffle_in_tokens"])
    assert_as_golden(unshuffle_patches(tokens, (2, 3), 4), golden["shuffle_out_bchw"], 0.0)


def test_the_scale_is_the_mean_distance_of_the_valid_points() -> None:
    golden = golden_arrays("geometry")
    points = torch.from_numpy(golden["norm/pts"])[:, 0]
    masks = torch.from_numpy(golden["norm/masks"])[:, 0]
    joint = mean_distance(points, masks)
    assert_as_golden(joint, golden["norm/joint_factor"].squeeze(), 1e-6)
    assert_as_golden(points[0] / joint, golden["norm/joint_out0"][0], 1e-6)
    single = mean_distance(points[:1], masks[:1])
    assert_as_golden(single, golden["norm/single0_factor"].squeeze(), 1e-6)
    everywhere = mean_distance(points, torch.ones_like(masks))
    assert_as_golden(everywhere, golden["norm/joint_nomask_factor"].squeeze(), 1e-6)


def test_the_scale_of_no_valid_point_is_tiny_and_finite() -> None:
    nothing = mean_distance(torch.full((1, 4, 4, 3), torch.nan), torch.zeros(1, 4, 4).bool())
    assert float(nothing) == pytest.approx(1e-8)


def pattern(width: int, height: int) -> np.ndarray:
    """The picture that the golden numbers were made from."""
    y, x = np.mgrid[:height, :width].astype(np.int64)
    red = (x * 255 // (width - 1)) ^ ((x * y >> 4) & 31)
    green = (y * 255 // (height - 1)) ^ ((x * 3 + y * 5) & 15)
    blue = (((x >> 4) + (y >> 4)) & 1) * 160 + ((x * 7 + y * 13) & 63)
    return (np.stack([red, green, blue], axis=-1) & 255).astype(np.uint8)


def digest(picture: np.ndarray) -> bytes:
    return hashlib.sha256(np.ascontiguousarray(picture).tobytes()).digest()


@pytest.mark.parametrize(("width", "height"), PICTURES)
def test_pictures_are_reduced_byte_for_byte_as_published(width: int, height: int) -> None:
    golden, case = golden_arrays("preprocess"), f"w{width}_h{height}"
    picture = pattern(width, height)
    assert digest(picture) == golden[f"{case}/sha256_input_rgb"].tobytes()
    crop = Crop.of(width, height)
    assert (crop.resized_width, crop.resized_height) == tuple(golden[f"{case}/resized_wh"])
    box = (crop.left, crop.top, crop.left + 224, crop.top + 224)
    assert box == tuple(golden[f"{case}/crop_xyxy"])
    from_folder = network_picture(picture, smooth_enlarging=True)
    from_video = network_picture(picture)
    # another Pillow may round differently by one; the hashes then differ and the numbers decide
    if digest(from_folder) != golden[f"{case}/sha256_load_images_u8"].tobytes():
        key = f"{case}/load_images_u8"
        stride = 1 if key in golden else 7
        expected = golden[key if stride == 1 else f"{key}_stride7"]
        assert_as_golden(from_folder[::stride, ::stride].astype(int), expected.astype(int), 1.0)
    if digest(from_video) != golden[f"{case}/sha256_load_single_u8"].tobytes():
        assert np.abs(from_video.astype(int) - from_folder).max() <= 1


def test_every_grey_value_is_normalised_as_published() -> None:
    ramp = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, axis=3)
    images = normalised(ramp, "cpu")
    assert_as_golden(images[0, 1].flatten(), golden_arrays("preprocess")["float_lut_u8_to_norm"], 0)


def test_intrinsics_follow_a_point_through_the_crop() -> None:
    crop = Crop.of(1280, 720)
    K = np.array([[900.0, 0, 637.0], [0, 910.0, 355.0], [0, 0, 1]])
    point_cam = np.array([0.1, -0.05, 2.0])
    full, cut = K @ point_cam / 2.0, crop.intrinsics(K) @ point_cam / 2.0
    np.testing.assert_allclose(crop.full_from_crop(cut[None, :2]), full[None, :2], atol=1e-9)


@pytest.mark.parametrize("size", [(0, 10), (5000, 100)])
def test_a_picture_that_no_crop_fits_is_refused_with_its_size(size: tuple[int, int]) -> None:
    with pytest.raises(BackendError, match=f"{size[0]} x {size[1]}"):
        Crop.of(*size)


@pytest.mark.parametrize(
    ("network", "key", "parameters"),
    [
        (ImageToPoints, "image_to_points", 532_934_913),
        (LocalToWorld, "local_to_world", 230_624_000),
    ],
)
def test_keys_and_shapes_are_the_published_ones(network: type, key: str, parameters: int) -> None:
    golden = json.loads((golden_folder() / "full_size_keys.json").read_text())[key]
    with torch.device("meta"):
        state = network(PUBLISHED).state_dict()
    assert {name: list(tensor.shape) for name, tensor in state.items()} == golden
    assert sum(tensor.numel() for tensor in state.values()) == parameters


def test_sizes_survive_their_json() -> None:
    assert NetworkSizes.from_json(PUBLISHED.to_json()) == PUBLISHED


def test_sizes_that_the_position_code_cannot_split_are_refused() -> None:
    with pytest.raises(BackendError, match="width 90 with 4 heads"):
        NetworkSizes(
            encoder_dim=90, encoder_depth=1, encoder_heads=4,
            decoder_dim=48, decoder_depth=2, decoder_heads=2,
        )  # fmt: skip
