# SPDX-License-Identifier: Apache-2.0
"""For programs of one's own (no stage calls it): fits colours and opacities to pictures.

As 3DGS trains (Kerbl et al., 2023), but geometry stays: it comes from measurements. Needs torch; on
a GPU `gsplat` draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float32, UInt8

from worldsystem_core.splats.gaussians import Gaussians
from worldsystem_core.splats.torch_raster import Render, Viewpoint

_RATE = 0.05
_EDGE = 1e-3


@dataclass(frozen=True, eq=False)
class Photograph:
    """A picture and where it was taken."""

    rgb: UInt8[np.ndarray, "h w 3"]
    viewpoint: Viewpoint


def refined(
    gaussians: Gaussians,
    photographs: Sequence[Photograph],
    render: Render,
    *,
    steps: int = 60,
    device: str = "cpu",
) -> Gaussians:
    """The same Gaussians (world) with colours and opacities that explain `photographs` better.

    One photograph a step, in turn; only pixels that are covered count. What no photograph shows
    keeps its colour.
    """
    import torch

    if not len(gaussians) or not photographs:
        return gaussians

    def parameter(values: Float32[np.ndarray, "*n"]) -> torch.Tensor:
        inside = np.clip(values, _EDGE, 1 - _EDGE)
        logits = torch.from_numpy(np.log(inside / (1 - inside))).to(device)
        return logits.requires_grad_()

    rgb, opacities = parameter(gaussians.rgb), parameter(gaussians.opacities)
    targets = [torch.from_numpy(p.rgb.copy()).to(device).float() / 255 for p in photographs]
    optimiser = torch.optim.Adam([rgb, opacities], lr=_RATE)
    for step in range(steps):
        chosen = step % len(photographs)
        seen = render(rgb.sigmoid(), opacities.sigmoid(), photographs[chosen].viewpoint)
        alpha = seen[..., 3:].detach()
        loss = ((seen[..., :3] - alpha * targets[chosen]).abs()).mean()
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()

    def array(logits: torch.Tensor) -> Float32[np.ndarray, "*n"]:
        return np.asarray(logits.detach().sigmoid().cpu().numpy())

    return replace(gaussians, rgb=array(rgb), opacities=array(opacities))
