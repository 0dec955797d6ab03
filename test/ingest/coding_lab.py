# SPDX-License-Identifier: Apache-2.0
"""Short videos in any codec, size, pixel format and colour space, and what becomes of them."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import av
import numpy as np
import pytest
from ingest_lab import AccessUnit, encode

from worldsystem_core.byte_stream import joined, nal_units
from worldsystem_ingest.codec.decoder import Decoded, Decoder, DecoderSettings, Lost, Outcome
from worldsystem_ingest.codec.h264 import PPS, SPS

ENCODERS = {"h264": "libx264", "h265": "libx265"}


@dataclass(frozen=True, kw_only=True)
class Coding:
    """How pictures are encoded; `matrix` and `full_range` as FFmpeg's numbers tag them."""

    codec: str = "h264"
    pix_fmt: str = "yuv420p"
    matrix: int = 2
    full_range: bool = False
    gop: int = 10
    b_frames: int = 0
    params: str = ""


def coded(pictures: list[np.ndarray | av.VideoFrame], coding: Coding) -> list[AccessUnit]:
    """Access units in coding order; arrays are RGB, frames must have the coding's format."""
    encoder = ENCODERS[coding.codec]
    if encoder not in av.codecs_available:
        pytest.skip(f"this PyAV has no {encoder}, so there is no {coding.codec} to test with")
    context = av.CodecContext.create(encoder, "w")
    first = pictures[0]
    context.width, context.height = (
        (first.width, first.height)
        if isinstance(first, av.VideoFrame)
        else (first.shape[1], first.shape[0])
    )
    context.pix_fmt = coding.pix_fmt
    context.colorspace, context.color_range = coding.matrix, 2 if coding.full_range else 1
    context.time_base, context.framerate = Fraction(1, 30), Fraction(30)
    own = "open-gop=0:repeat-headers=1:log-level=none" if coding.codec == "h265" else "threads=1"
    common = f"keyint={coding.gop}:min-keyint={coding.gop}:scenecut=0:bframes={coding.b_frames}"
    params = ":".join(filter(None, [common, "b-adapt=0", own, coding.params]))
    context.options = {"preset": "ultrafast", f"{encoder[3:]}-params": params, "crf": "12"}
    packets = []
    for number, picture in enumerate(pictures):
        if not isinstance(picture, av.VideoFrame):
            picture = av.VideoFrame.from_ndarray(picture, format="rgb24")
        picture.pts = number
        packets += context.encode(picture)
    packets += context.encode(None)
    return [AccessUnit(bytes(p), p.is_keyframe, p.pts) for p in packets]


def moving_scene(count: int, width: int = 160, height: int = 96, seed: int = 0) -> list[np.ndarray]:
    """Smooth blobs that move, so that pictures depend on the ones before."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(30, 220, (height // 8 + count // 2 + 2, width // 8 + count + 2, 3))
    large = np.kron(coarse, np.ones((8, 8, 1))).astype(np.uint8)
    return [large[2 * n : 2 * n + height, 3 * n : 3 * n + width].copy() for n in range(count)]


def decode(
    units: list[AccessUnit], settings: DecoderSettings | None = None, *, first: int = 0
) -> list[Outcome]:
    """Everything that becomes of `units`, fed under their position from `first` on."""
    decoder, outcomes = Decoder(settings), []
    for index, unit in enumerate(units, first):
        outcomes += decoder.feed(index, unit.data, unit.is_key)
    outcomes += decoder.flush()
    assert sorted(o.index for o in outcomes) == list(range(first, first + len(units)))
    return outcomes


def pictures_in(outcomes: list[Outcome]) -> dict[int, np.ndarray]:
    return {o.index: o.rgb for o in outcomes if isinstance(o, Decoded)}


def losses_in(outcomes: list[Outcome]) -> dict[int, str]:
    return {o.index: o.reason for o in outcomes if isinstance(o, Lost)}


def cut(unit: AccessUnit, share: float = 0.5) -> AccessUnit:
    """The unit without its end, as when the link breaks."""
    return AccessUnit(unit.data[: int(len(unit.data) * share)], unit.is_key, unit.shows)


def without_sets(unit: AccessUnit, kinds: tuple[int, ...] = (SPS, PPS)) -> AccessUnit:
    """An H.264 unit without its parameter sets."""
    kept = [nal for nal in nal_units(unit.data) if nal[0] & 31 not in kinds]
    return AccessUnit(joined(kept), unit.is_key, unit.shows)


__all__ = [
    "AccessUnit",
    "Coding",
    "coded",
    "cut",
    "decode",
    "encode",
    "losses_in",
    "moving_scene",
    "pictures_in",
    "without_sets",
]
