# SPDX-License-Identifier: Apache-2.0
"""Which confidence means what: each training gives it a scale of its own.

The thresholds of the back-end are set where the published ones lie in the published networks'
distributions: unsure points below, a frame that fits the scene well above.
"""

from __future__ import annotations

import numpy as np
import torch
from steps import REFERENCES, predict_window, predict_world
from windows import Clip, reference_windows, world_windows

from worldsystem_slam3r.model.i2p import ImageToPoints
from worldsystem_slam3r.model.l2w import LocalToWorld

_WINDOWS = 12
_BATCH = 4


def settings_for(i2p: ImageToPoints, l2w: LocalToWorld, clips: list[Clip]) -> dict[str, float]:
    """Values of `Slam3rConfig` that suit these networks, from rooms they were not trained on."""
    rng = np.random.default_rng(9)
    own, known, starts = [], [], []
    with torch.inference_mode():
        for _ in range(_WINDOWS):
            window = predict_window(i2p, reference_windows(clips, rng, batch=_BATCH, views=5))
            own.append(window.confidence[:, 0].flatten())
            starts.append(window.confidence.mean(dim=(1, 2, 3)))
            world = predict_world(l2w, i2p, world_windows(clips, rng, batch=_BATCH, views=6))
            known.append(world.confidence[:, REFERENCES:].flatten(2).mean(dim=2).flatten())
    frames, points = torch.cat(known), torch.cat(own)
    return {
        "local_confidence": _rounded(points.quantile(0.15)),
        "initial_confidence": _rounded(torch.cat(starts).quantile(0.1)),
        "lost_confidence": _rounded(1.0 + 0.5 * (frames.quantile(0.05) - 1.0)),
        "keyframe_confidence": _rounded(frames.quantile(0.2)),
    }


def _rounded(value: torch.Tensor) -> float:
    return round(max(1.0, float(value)), 3)
