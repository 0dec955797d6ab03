# SPDX-License-Identifier: Apache-2.0
"""Depth Anything 3 in small, with random weights; and a stand-in that knows the truth."""

from __future__ import annotations

import numpy as np

from worldsystem_core.frames import Camera, Frame
from worldsystem_core.geometry.se3 import look_at
from worldsystem_core.geometry.sim3 import Sim3
from worldsystem_slam3r.da3.network import SeenView

CAMERA = Camera.from_horizontal_fov(56, 42, np.radians(70.0))
INTERVAL_NS = 100_000_000


def tiny_network():
    """The package's own network, 0.6 million random parameters, with a Gaussian head."""
    import torch

    from worldsystem_slam3r.da3.package import module

    torch.manual_seed(0)
    backbone = _backbone(alt_start=2, qknorm_start=2, rope_start=2, cat_token=True)
    sizes = {"dim_in": 96, "features": 16, "out_channels": [8, 8, 16, 16]}
    adapter = module("model.gs_adapter").GaussianAdapter(
        sh_degree=2, pred_offset_depth=True, pred_offset_xy=True
    )
    return module("model.da3").DepthAnything3Net(
        net=backbone,
        head=module("model.dualdpt").DualDPT(output_dim=2, **sizes),
        cam_dec=module("model.cam_dec").CameraDec(dim_in=96),
        cam_enc=module("model.cam_enc").CameraEnc(dim_out=48, trunk_depth=1, num_heads=3),
        gs_head=module("model.gsdpt").GSDPT(output_dim=adapter.d_in + 1, **sizes),
        gs_adapter=adapter,
    )


def tiny_nested_network():
    """The same with a branch beside it that measures metres, as in the package's `nested`."""
    from worldsystem_slam3r.da3.package import module

    anyview = tiny_network()
    metric = module("model.da3").DepthAnything3Net(
        net=_backbone(alt_start=-1, qknorm_start=-1, rope_start=-1, cat_token=False),
        head=module("model.dpt").DPT(
            dim_in=48, output_dim=1, features=16, out_channels=[8, 8, 16, 16]
        ),
    )
    return module("model.da3").NestedDepthAnything3Net(anyview, metric)


def _backbone(**described):
    import torch

    from worldsystem_slam3r.da3.package import module

    vit = module("model.dinov2.vision_transformer").DinoVisionTransformer
    dino = module("model.dinov2.dinov2").DinoV2
    backbone = dino.__new__(dino)
    torch.nn.Module.__init__(backbone)
    backbone.out_layers = [2, 3, 5, 7]
    backbone.pretrained = vit(
        img_size=518, patch_size=14, embed_dim=48, depth=8, num_heads=3, mlp_ratio=2,
        init_values=1.0, **described,
    )  # fmt: skip
    return backbone


def true_pose(number: int) -> np.ndarray:
    """The camera slides along a wall at y = 3 and looks at it a little aslant."""
    eye = np.array([0.05 * number, 0.3 * np.sin(0.2 * number), 0.0])
    ahead = np.array([0.2 * np.sin(0.3 * number), 1.0, 0.0])
    return look_at(eye, eye + ahead, np.array([0.0, 0.0, 1.0]))


def true_depth(pose: np.ndarray) -> np.ndarray:
    """Depth of the wall, which has a step in it so that a window's scale can be told."""
    v, u = np.mgrid[0 : CAMERA.height, 0 : CAMERA.width]
    rays = np.stack(
        [(u - CAMERA.cx) / CAMERA.fx, (v - CAMERA.cy) / CAMERA.fy, np.ones(u.shape)], -1
    )
    along = (rays @ pose[:3, :3].T)[..., 1]
    depth = (3.0 - pose[1, 3]) / along
    return np.where(v > CAMERA.height // 2, 0.8 * depth, depth).astype(np.float32)


def frame(number: int) -> Frame:
    """A picture that bears its number, so that the stand-in knows which it is."""
    rgb = np.full((CAMERA.height, CAMERA.width, 3), number, np.uint8)
    return Frame(id=number, stamp_ns=number * INTERVAL_NS, rgb=rgb)


class TruthfulNetwork:
    """Sees everything as it is, but for an origin, axes and unit of each window's own."""

    metric = False
    has_gaussians = False

    def __init__(self) -> None:
        self._rng = np.random.default_rng(5)
        self.calls: list[list[int]] = []

    def see(self, pictures) -> list[SeenView]:
        numbers = [int(picture[0, 0, 0]) for picture in pictures]
        self.calls.append(numbers)
        turn = np.linalg.qr(self._rng.normal(size=(3, 3)))[0]
        turn *= np.linalg.det(turn)
        window_from_world = Sim3(self._rng.uniform(0.3, 3.0), turn, self._rng.normal(size=3))
        return [self._view(number, window_from_world) for number in numbers]

    def _view(self, number: int, window_from_world: Sim3) -> SeenView:
        pose = true_pose(number)
        depth = true_depth(pose)
        return SeenView(
            rgb=np.full((*depth.shape, 3), number, np.uint8),
            depth=(depth * window_from_world.scale).astype(np.float32),
            confidence=np.full(depth.shape, 0.8, np.float32),
            window_from_cam=window_from_world.apply_pose(pose),
            camera=CAMERA,
            gaussians=None,
        )
