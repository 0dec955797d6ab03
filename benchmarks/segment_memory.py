# SPDX-License-Identifier: Apache-2.0
"""How much SAM 2 sessions hold over a long stream: ours, and the library's as it comes."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from tiny_networks import tiny_sam2

from worldsystem_segment.learned.mask_sessions import MaskSessions
from worldsystem_segment.learned.pruning import held_tensors, prune

NAIVE_FRAMES = 100


def memory_of_sessions(frames: int) -> tuple[list[int], list[int]]:
    """Bytes of tensors held, every ten frames: with pruning, and without (100 frames)."""
    torch.set_num_threads(1)
    model = tiny_sam2()
    return _run(model, frames), _run(model, NAIVE_FRAMES, naive=True)


def _run(model: Any, frames: int, *, naive: bool = False) -> list[int]:
    from transformers import Sam2VideoInferenceSession

    replaced = not naive
    forget = (lambda *_: None) if naive else prune
    sessions = MaskSessions(model, Sam2VideoInferenceSession, forget)
    random, held = np.random.default_rng(0), []
    for frame in range(frames):
        if frame % 40 == 0 and (replaced or frame < 80):
            if replaced:
                sessions.remove(frame // 40 - 2)
            sessions.prompt(frame // 40, (8, 8, 40, 36))
        sessions.step(random.integers(0, 255, (48, 64, 3), np.uint8))
        if frame % 10 == 9:
            held.append(sum(held_tensors(s) for s in sessions.sessions().values()))
    return held
