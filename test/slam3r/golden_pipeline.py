# SPDX-License-Identifier: Apache-2.0
"""The golden video, and networks that note which frames meet."""

from __future__ import annotations

from typing import Any

import torch
from golden import golden_arrays

from worldsystem_slam3r.model.networks import Networks
from worldsystem_slam3r.model.preprocess import normalised

# Tiny tensors: more threads only wait for each other, for minutes where cores are short.
torch.set_num_threads(1)


def video(name: str) -> torch.Tensor:
    """The frames of a golden file as the networks take them."""
    return normalised(golden_arrays(name)["img_u8"], "cpu")


class Noting:
    """Passes every call on and notes the frames of each registration by their tokens."""

    def __init__(self, networks: Networks, frames: torch.Tensor) -> None:
        self._networks = networks
        tokens = self.encode(frames)
        self._frame_of = {own.numpy().tobytes(): i for i, own in enumerate(tokens)}
        self.registrations: list[dict[str, list[int]]] = []
        self._shown: dict[bytes, int] = {}

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        """One by one, so that the tokens of a frame have the same bits whatever comes with it."""
        return torch.cat([self._networks.encode(image[None]) for image in images])

    def l2w_references(self, tokens: torch.Tensor, points: torch.Tensor) -> Any:
        side = self._networks.l2w_references(tokens, points)
        self._shown |= zip(_by_view(side), self._frames(tokens), strict=True)
        return side

    def l2w_sources(self, references: Any, tokens: torch.Tensor, points: torch.Tensor) -> Any:
        self.registrations.append(
            {
                "ref_frame_ids": [self._shown[one] for one in _by_view(references)],
                "src_frame_ids": self._frames(tokens),
            }
        )
        return self._networks.l2w_sources(references, tokens, points)

    def _frames(self, tokens: torch.Tensor) -> list[int]:
        return [self._frame_of[one.numpy().tobytes()] for one in tokens]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._networks, name)


def _by_view(side: Any) -> list[bytes]:
    """What tells the views of a side apart, whatever they were joined with."""
    return [own.numpy().tobytes() for own in side.offer.keys[0]]
