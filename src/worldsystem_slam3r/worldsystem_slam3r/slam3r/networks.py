# SPDX-License-Identifier: Apache-2.0
"""What the pipelines ask of the networks; `worldsystem_slam3r.model` answers it."""

from __future__ import annotations

from typing import Protocol

from jaxtyping import Float
from torch import Tensor

from worldsystem_slam3r.model.decoder import Side


class Networks(Protocol):
    """The image-to-points and local-to-world networks as the pipelines call them.

    Tokens come from the shared encoder, before any normalisation; s tokens of width d per image.
    A `Side` is what views show to the other side of a network: kept per view, joined per window.
    """

    def encode(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n s d"]:
        """Tokens of images with values in [-1, 1]."""
        ...

    def i2p(
        self, tokens: Float[Tensor, "v s d"], ref: int
    ) -> tuple[Float[Tensor, "v h w 3"], Float[Tensor, "v h w"]]:
        """Points of all views in the camera frame of view `ref` (any scale), and confidence ≥ 1."""
        ...

    def i2p_sources(self, tokens: Float[Tensor, "v s d"]) -> Side:
        """What views give as supporting views and as candidates; may be kept and joined."""
        ...

    def i2p_reference(
        self, ref_tokens: Float[Tensor, "s d"], sources: Side
    ) -> tuple[Float[Tensor, "h w 3"], Float[Tensor, "h w"]]:
        """Points and confidence of one view in its own camera frame, seen with `sources`."""
        ...

    def l2w_references(
        self, tokens: Float[Tensor, "r s d"], points: Float[Tensor, "r h w 3"]
    ) -> Side:
        """What scene views with their points in one frame give as references."""
        ...

    def l2w_sources(
        self, references: Side, tokens: Float[Tensor, "k s d"], points: Float[Tensor, "k h w 3"]
    ) -> tuple[Float[Tensor, "k h w 3"], Float[Tensor, "k h w"]]:
        """Points of k sources in the frame and scale of the references, and their confidence."""
        ...

    def retrieval_scores(
        self, query_tokens: Float[Tensor, "q s d"], candidates: Side
    ) -> Float[Tensor, "c"]:
        """How well each candidate serves all the queries, in [0, 1)."""
        ...
