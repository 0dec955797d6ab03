# SPDX-License-Identifier: Apache-2.0
"""H.264 as a drone sends it: no B frames, no delay, a key frame a second; bytes repeat."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
import numpy as np
from jaxtyping import UInt8

from worldsystem_core.byte_stream import nal_type, nal_units
from worldsystem_core.wire import START_CODE, PacketType, VideoPacket

_SPS, _PPS, _IDR, _SLICES = 7, 8, 5, (1, 5)


@dataclass(frozen=True)
class AccessUnit:
    """One encoded picture: its slices in Annex-B form, with the parameter sets of a key frame."""

    is_key: bool
    sps: bytes
    pps: bytes
    slices: bytes

    @property
    def annex_b(self) -> bytes:
        """All of it as a decoder wants it."""
        return self.sps + self.pps + self.slices


class Encoder:
    """Encodes one stream of pictures of one size with one thread (so that bytes repeat)."""

    def __init__(self, width: int, height: int, fps: float, bitrate_kbps: int) -> None:
        codec: Any = av.CodecContext.create("libx264", "w")
        codec.width, codec.height = width, height
        codec.pix_fmt = "yuv420p"
        codec.framerate = Fraction(fps).limit_denominator(1001)
        codec.time_base = 1 / codec.framerate
        codec.bit_rate = bitrate_kbps * 1000
        codec.thread_count = 1
        key_every = max(1, round(fps))
        codec.gop_size = key_every
        codec.max_b_frames = 0
        codec.options = {
            "preset": "ultrafast",
            "tune": "zerolatency",
            "x264-params": f"keyint={key_every}:min-keyint={key_every}:scenecut=0:repeat-headers=1"
            f":sliced-threads=0:threads=1:vbv-maxrate={bitrate_kbps}:vbv-bufsize={bitrate_kbps}",
        }
        self._codec = codec
        self._count = 0

    def encode(self, rgb: UInt8[np.ndarray, "h w 3"]) -> AccessUnit:
        """The next picture; one goes in, one comes out."""
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24")
        frame.pts = self._count
        self._count += 1
        packets = self._codec.encode(frame)
        return split_access_unit(b"".join(bytes(packet) for packet in packets))


def split_access_unit(annex_b: bytes) -> AccessUnit:
    """Sort the NAL units of one picture; SEI and delimiters are left out."""
    sps = pps = slices = b""
    is_key = False
    for nal in nal_units(annex_b):
        kind = nal_type(nal, "h264")
        if kind == _SPS:
            sps += START_CODE + nal
        elif kind == _PPS:
            pps += START_CODE + nal
        elif kind in _SLICES:
            slices += START_CODE + nal
            is_key |= kind == _IDR
    return AccessUnit(is_key, sps, pps, slices)


def packets_of(unit: AccessUnit, frame_number: int, sender_ns: int) -> list[VideoPacket]:
    """The wire packets of one picture: SPS and PPS first when it is a key frame."""
    found = []
    if unit.is_key:
        found.append(VideoPacket(type=PacketType.SPS, sender_ns=sender_ns, payload=unit.sps))
        found.append(VideoPacket(type=PacketType.PPS, sender_ns=sender_ns, payload=unit.pps))
    kind = PacketType.KEY_FRAME if unit.is_key else PacketType.FRAME
    found.append(
        VideoPacket(type=kind, sender_ns=sender_ns, payload=unit.slices, frame_number=frame_number)
    )
    return found
