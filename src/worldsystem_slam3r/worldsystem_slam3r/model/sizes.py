# SPDX-License-Identifier: Apache-2.0
"""The sizes that make one network of the SLAM3R family differ from another."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from worldsystem_core.errors import BackendError

METADATA_KEY = "worldsystem_sizes"
"""Under this key a safetensors file may carry its sizes as JSON."""


@dataclass(frozen=True, kw_only=True)
class NetworkSizes:
    """Widths, depths and head counts; everything else is fixed by the architecture."""

    encoder_dim: int
    encoder_depth: int
    encoder_heads: int
    decoder_dim: int
    decoder_depth: int
    decoder_heads: int
    patch_px: int = 16
    mlp_ratio: int = 4
    rope_base: float = 100.0

    def __post_init__(self) -> None:
        for side, dim, heads in (
            ("encoder", self.encoder_dim, self.encoder_heads),
            ("decoder", self.decoder_dim, self.decoder_heads),
        ):
            if dim % (4 * heads):
                raise BackendError(
                    f"{side} width {dim} with {heads} heads gives no head width that is a multiple "
                    "of 4, which the position code needs; change the width or the number of heads"
                )
        if self.decoder_depth < 2:
            raise BackendError(
                f"decoder depth {self.decoder_depth} is too small: retrieval reads block 1, "
                "so at least 2 blocks are needed"
            )

    def to_json(self) -> str:
        """The sizes as one line of JSON, for a file's metadata."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> NetworkSizes:
        """Inverse of `to_json`."""
        return cls(**json.loads(text))

    @classmethod
    def from_published_config(cls, config: Mapping[str, Any]) -> NetworkSizes:  # JSON values
        """Sizes from the `config` object of a published model card."""
        return cls(
            encoder_dim=config["enc_embed_dim"],
            encoder_depth=config["enc_depth"],
            encoder_heads=config["enc_num_heads"],
            decoder_dim=config["dec_embed_dim"],
            decoder_depth=config["dec_depth"],
            decoder_heads=config["dec_num_heads"],
            patch_px=config["patch_size"],
            mlp_ratio=config["mlp_ratio"],
        )


PUBLISHED = NetworkSizes(
    encoder_dim=1024,
    encoder_depth=24,
    encoder_heads=16,
    decoder_dim=768,
    decoder_depth=12,
    decoder_heads=12,
)
"""The published checkpoints: 224 x 224 pixels, 764 million parameters in both networks."""
