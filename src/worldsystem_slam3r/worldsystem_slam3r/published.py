# SPDX-License-Identifier: Apache-2.0
"""The weights that SLAM3R's authors published: what they are and under which terms."""

from __future__ import annotations

from dataclasses import dataclass

TERMS = (
    "The published SLAM3R weights are licensed CC BY-NC-SA 4.0: no commercial use, credit to their "
    "authors, and what is made from them under the same licence. "
    "See https://creativecommons.org/licenses/by-nc-sa/4.0/"
)


@dataclass(frozen=True)
class PublishedFile:
    """One file: its name here, its address, and what it must be."""

    name: str
    url: str
    size_bytes: int
    sha256: str


PUBLISHED_FILES = (
    PublishedFile(
        name="slam3r_i2p",
        url="https://huggingface.co/siyan824/slam3r_i2p/resolve/main/model.safetensors",
        size_bytes=2_131_831_108,
        sha256="9f58b4a39f9e3641ed2fe19d16a82be956975ec1ecb568899c8852370aa78b8c",
    ),
    PublishedFile(
        name="slam3r_l2w",
        url="https://huggingface.co/siyan824/slam3r_l2w/resolve/main/model.safetensors",
        size_bytes=922_557_296,
        sha256="637c3bd3d440d84e2976d898569716ef64cadd446fce61ad5dd9236fa2c58359",
    ),
)
"""Sizes follow from the published keys and shapes; the checksums are those in common use."""
