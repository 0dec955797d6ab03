# SPDX-License-Identifier: Apache-2.0
"""A window of pictures through Depth Anything 3: depth, confidence, cameras and Gaussians."""

from __future__ import annotations

from dataclasses import dataclass
from textwrap import shorten
from typing import Any

import cv2
import numpy as np
import torch
from jaxtyping import Float32, Float64, UInt8

from worldsystem_core.errors import BackendError
from worldsystem_core.frames import Camera
from worldsystem_core.geometry.se3 import inverse
from worldsystem_core.splats.gaussians import SH_BAND_0, Gaussians
from worldsystem_slam3r.da3.package import build
from worldsystem_slam3r.da3.variants import Da3Weights, Variant

PATCH_PX = 14
_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
_DEVIATION = np.array([0.229, 0.224, 0.225], np.float32)
_LEAST_OPACITY = 0.05
_BORDER_SHARE = 8 / 256  # Gaussians there are unsure, as the package's own export has it


@dataclass(frozen=True, eq=False)
class SeenView:
    """One picture as a window saw it; lengths in the window's unit, which is its own.

    `gaussians`, where the network predicts some, are in the frame of this view's camera.
    """

    rgb: UInt8[np.ndarray, "h w 3"]
    depth: Float32[np.ndarray, "h w"]
    confidence: Float32[np.ndarray, "h w"]
    window_from_cam: Float64[np.ndarray, "4 4"]
    camera: Camera
    gaussians: Gaussians | None


class Da3Network:
    """A network on its device; `see` is one call with one window."""

    def __init__(self, network: Any, *, device: str, long_side_px: int, metric: bool) -> None:
        self._network = network.eval().to(device)
        self._device = device
        self._long_side_px = long_side_px
        self.metric = metric
        self.has_gaussians = getattr(self._inner(), "gs_head", None) is not None

    @staticmethod
    def load(weights: Da3Weights, *, device: str, long_side_px: int) -> Da3Network:
        """Build the variant and read its weights; `BackendError` where they are not its own."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        network, name = build(weights.variant.configuration), weights.variant.name
        try:
            found = load_file(weights.path)
            state = {key.removeprefix("model."): value for key, value in found.items()}
            missing, unknown = network.load_state_dict(state, strict=False)
        except torch.OutOfMemoryError:
            raise
        except (OSError, SafetensorError, RuntimeError) as error:
            raise BackendError(
                f"{weights.path} cannot be read as '{name}' ({shorten(str(error), 200)}); remove "
                f'it and get it again with `make weights ARGS="--da3 {name}"`'
            ) from error
        if missing or unknown:
            raise BackendError(
                f"{weights.path} does not hold '{name}': {len(missing)} values are "
                f"missing ({', '.join(missing[:3])}), {len(unknown)} are unknown"
            )
        return Da3Network(
            network, device=device, long_side_px=long_side_px, metric=weights.variant.metric
        )

    @staticmethod
    def random(variant: Variant, *, device: str, long_side_px: int) -> Da3Network:
        """A variant with random weights, to measure speed and memory."""
        network = build(variant.configuration)
        return Da3Network(network, device=device, long_side_px=long_side_px, metric=variant.metric)

    def see(self, pictures: list[UInt8[np.ndarray, "h w 3"]]) -> list[SeenView]:
        """All pictures of one size together; the window's frame is the network's own."""
        small = [self._resized(picture) for picture in pictures]
        stacked = (np.stack(small).astype(np.float32) / 255 - _MEAN) / _DEVIATION
        images = torch.from_numpy(stacked.transpose(0, 3, 1, 2).copy())[None].to(self._device)
        on_gpu = self._device == "cuda"
        with (
            torch.inference_mode(),
            torch.autocast(self._device, torch.bfloat16, enabled=on_gpu),
        ):
            output = self._network(images, infer_gs=self.has_gaussians)
        return self._views(output, small)

    def _inner(self) -> Any:
        """The branch that sees all views; the nested network has two."""
        return getattr(self._network, "da3", self._network)

    def _resized(self, picture: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h2 w2 3"]:
        height, width = picture.shape[:2]
        share = self._long_side_px / max(height, width)
        size = [max(1, round(side * share / PATCH_PX)) * PATCH_PX for side in (width, height)]
        method = cv2.INTER_AREA if share < 1 else cv2.INTER_CUBIC
        return np.asarray(cv2.resize(picture, size, interpolation=method), dtype=np.uint8)

    def _views(self, output: Any, pictures: list[UInt8[np.ndarray, "h w 3"]]) -> list[SeenView]:
        def array(value: torch.Tensor) -> np.ndarray:
            return value[0].detach().float().cpu().numpy()

        depth, confidence = array(output["depth"]), array(output["depth_conf"])
        extrinsics, intrinsics = array(output["extrinsics"]), array(output["intrinsics"])
        found = output.get("gaussians")
        growth = float(output.get("scale_factor", 1.0) or 1.0) if self.metric else 1.0
        views = []
        for n, rgb in enumerate(pictures):
            cam_from_window = np.eye(4)
            cam_from_window[:3] = extrinsics[n][:3]
            own = _gaussians_of(found, n, depth[n].shape, cam_from_window, growth)
            height, width = rgb.shape[:2]
            views.append(
                SeenView(
                    rgb=rgb,
                    depth=depth[n].reshape(height, width),
                    # the network's confidence runs from 1 up
                    confidence=np.clip(1 - 1 / np.maximum(confidence[n], 1), 0, 1),
                    window_from_cam=inverse(cam_from_window),
                    camera=Camera.from_K(intrinsics[n].astype(np.float64), width, height),
                    gaussians=own,
                )
            )
        return views


def _gaussians_of(
    found: Any,
    view: int,
    shape: tuple[int, ...],
    cam_from_window: Float64[np.ndarray, "4 4"],
    growth: float,
) -> Gaussians | None:
    """One view's Gaussians, pruned, in its camera's frame; one a pixel comes from the network.

    The nested network scales its depths to metres and forgets its Gaussians: `growth` does it.
    """
    from worldsystem_core.geometry.sim3 import Sim3

    if found is None:
        return None
    height, width = shape[-2:]
    own = slice(view * height * width, (view + 1) * height * width)

    def array(value: torch.Tensor) -> np.ndarray:
        return np.ascontiguousarray(value[0, own].detach().float().cpu().numpy())

    opacities = array(found.opacities).reshape(-1)
    kept = opacities > _LEAST_OPACITY
    border = max(1, round(_BORDER_SHARE * min(height, width)))
    inside = np.zeros((height, width), bool)
    inside[border:-border, border:-border] = True
    kept &= inside.ravel()
    rgb = 0.5 + SH_BAND_0 * array(found.harmonics)[..., 0]
    rotations = array(found.rotations)
    rotations /= np.maximum(np.linalg.norm(rotations, axis=1, keepdims=True), 1e-12)
    window = Gaussians(
        array(found.means) * np.float32(growth),
        array(found.scales) * np.float32(growth),
        rotations,
        np.clip(rgb, 0, 1).astype(np.float32),
        opacities,
    )
    finite = np.isfinite(window.means).all(axis=1) & np.isfinite(window.scales).all(axis=1)
    return window[kept & finite].transformed(Sim3.from_pose(cam_from_window))
