# SPDX-License-Identifier: Apache-2.0
"""The weights that networks' authors published: what they are and under which terms."""

from __future__ import annotations

from dataclasses import dataclass

from worldsystem_slam3r.da3.variants import APACHE, Variant

TERMS = (
    "The published SLAM3R weights are licensed CC BY-NC-SA 4.0: no commercial use, credit to their "
    "authors, and what is made from them under the same licence. "
    "See https://creativecommons.org/licenses/by-nc-sa/4.0/"
)


@dataclass(frozen=True)
class PublishedFile:
    """One file: its name here, its address, and what it must be, as far as that is known."""

    name: str
    url: str
    size_bytes: int | None = None
    sha256: str = ""


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


def da3_file(variant: Variant) -> PublishedFile:
    """The file of one network of Depth Anything 3; neither size nor checksum is known here."""
    url = f"https://huggingface.co/depth-anything/{variant.published}/resolve/main/"
    return PublishedFile(f"da3/{variant.name}/model", f"{url}model.safetensors")


def da3_terms(variant: Variant) -> str:
    """What a network of Depth Anything 3 may be used for."""
    if variant.licence == APACHE:
        return (
            f"The published Depth Anything 3 weights '{variant.name}' are licensed Apache-2.0: any "
            "use, with the notices kept. See https://www.apache.org/licenses/LICENSE-2.0"
        )
    return (
        f"The published Depth Anything 3 weights '{variant.name}' are licensed CC BY-NC 4.0: no "
        "commercial use, and credit to their authors. "
        "See https://creativecommons.org/licenses/by-nc/4.0/"
    )
