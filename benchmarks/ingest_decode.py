# SPDX-License-Identifier: Apache-2.0
"""Decoding 1080p30 H.264 and handing pictures on, against a bare PyAV loop in the same run.

The bare loop is `for frame in container.decode(): frame.to_ndarray(format="rgb24")`, with the
threads PyAV chooses and, apart, with ours. Each pair of runs is interleaved, the order changing.
The clip is synthetic: a texture with detail of every size that moves, turns and carries noise, at
8 Mbit/s. "Live" is the path of the server, which may not hold pictures back; "file" uses all cores.
"""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import av
import cv2
import numpy as np
from harness import QUICK, Benchmark
from ingest_sinks import Nowhere
from jaxtyping import UInt8

from worldsystem_core.frames import EncodedFrame, Frame
from worldsystem_ingest.codec.decoder import DecoderSettings
from worldsystem_ingest.codec.live_decoding import LiveDecoding
from worldsystem_ingest.codec.pictures import RgbConversion
from worldsystem_ingest.config import IngestConfig
from worldsystem_ingest.files.video_file import VideoFile

WIDTH, HEIGHT, RATE_HZ, BITS_PER_S = 1920, 1080, 30, 8_000_000
FRAMES = 90 if QUICK else 240
PAIRS = 3 if QUICK else 7
_DATA = Path(os.environ.get("WORLDSYSTEM_DATA", Path(__file__).parents[2] / "shared" / "data"))
RECORDING = _DATA / "gopro_karma_drone" / "karma.mp4"
_TIMEOUT_S = 120.0


class Counting(Nowhere):
    """Counts pictures and tells when all have come."""

    def __init__(self, expected: int) -> None:
        self._left, self.lost = expected, 0
        self.complete = threading.Event()

    def frame(self, frame: Frame) -> None:
        """Count it."""
        self._settle()

    def dropped(self, frame_id: int, reason: str, stream: str) -> None:
        """Count it too: whoever decodes all of them faster does it by letting some go."""
        self.lost += 1
        self._settle()

    def _settle(self) -> None:
        self._left -= 1
        if not self._left:
            self.complete.set()


@dataclass(frozen=True)
class Peer:
    """A bare loop and the path of ours that it is compared with."""

    id: str
    note: str
    ours: Callable[[], float]
    bare: Callable[[], float]


def measure(bench: Benchmark) -> None:
    """Add the figures of the synthetic clip, and of a real recording where there is one."""
    clip = synthetic_clip()
    _measure_clip(bench, clip, "decode", RATE_HZ)
    _measure_stages(bench, clip)
    if RECORDING.is_file():
        _measure_clip(bench, RECORDING, "decode_gopro_480p", 30000 / 1001)


def synthetic_clip() -> Path:
    """The 1080p clip, made once for each length."""
    path = Path(tempfile.gettempdir()) / "worldsystem-benchmarks" / f"moving_1080p_{FRAMES}.mp4"
    if not path.is_file():
        path.parent.mkdir(exist_ok=True)
        unfinished = path.with_name(f"{os.getpid()}_{path.name}")
        _encode(unfinished)
        unfinished.replace(path)
    return path


def _measure_clip(bench: Benchmark, clip: Path, name: str, rate_hz: float) -> None:
    units = _units_of(clip)
    threads = DecoderSettings(threads=0).decoding_threads
    size = "_1080p" if name == "decode" else ""
    peers = [
        Peer("", "file", lambda: _file_s(clip), lambda: _bare_s(clip)),
        Peer(
            "_same_threads",
            f"file; both {threads} frame threads",
            lambda: _file_s(clip),
            lambda: _bare_s(clip, "FRAME", threads),
        ),
        Peer("_live", "live", lambda: _live_s(units), lambda: _bare_units_s(units)),
        Peer(
            "_live_same_threads",
            "live; both one thread",
            lambda: _live_s(units),
            lambda: _bare_units_s(units, "SLICE", 1),
        ),
    ]
    for peer in peers:
        ours, bare = _pairs(peer)
        ratios = [b / o for o, b in zip(ours, bare, strict=True)]
        if not peer.id.endswith("same_threads"):
            realtime = [len(units) / rate_hz / s for s in ours]
            kind = peer.id.removeprefix("_")
            realtime_id = "_".join(filter(None, [name, kind, "realtime"])) + size
            bench.add(realtime_id, realtime, "x", note=f"{peer.note}: decode, convert, hand over")
            mine = [1e3 * s / len(units) for s in ours]
            bench.add(f"{name}{peer.id}_ms", mine, "ms", note=f"{peer.note}, each picture")
        bench.add(
            f"{name}{peer.id}_vs_pyav", ratios, "x", note=f"bare loop's time / ours; {peer.note}"
        )


def _pairs(peer: Peer) -> tuple[list[float], list[float]]:
    ours, bare = [], []
    peer.ours()
    peer.bare()
    for number in range(PAIRS):
        if number % 2:
            bare.append(peer.bare())
            ours.append(peer.ours())
        else:
            ours.append(peer.ours())
            bare.append(peer.bare())
    return ours, bare


def _measure_stages(bench: Benchmark, clip: Path) -> None:
    """Each stage of the live path alone, in one thread."""
    units = _units_of(clip)
    context = av.CodecContext.create("h264", "r")
    context.thread_count = 1
    convert, decode_ms, convert_ms = RgbConversion(), [], []
    for unit in units:
        packet = av.Packet(unit.data)
        start = time.perf_counter()
        pictures = context.decode(packet)
        decode_ms.append(1e3 * (time.perf_counter() - start))
        for picture in pictures:
            start = time.perf_counter()
            convert(picture)
            convert_ms.append(1e3 * (time.perf_counter() - start))
    bench.add("decode_stage_decode_ms", decode_ms, "ms", note="one thread, 1080p")
    bench.add("decode_stage_convert_ms", convert_ms, "ms", note="to RGB, 1080p")
    without_key = [unit for unit in units if not unit.is_key]
    over_ms = [1e3 * _live_s(without_key, decodes=False) / len(without_key) for _ in range(PAIRS)]
    bench.add(
        "decode_stage_hand_over_ms", over_ms, "ms", note="queue, thread and ledger, no decoding"
    )


def _file_s(clip: Path) -> float:
    start = time.perf_counter()
    source = VideoFile(clip, IngestConfig())
    summary = source.run(Nowhere(), threading.Event())
    taken_s = time.perf_counter() - start
    if summary.broken:
        raise RuntimeError(summary.broken)
    return taken_s


def _live_s(units: list[EncodedFrame], *, decodes: bool = True) -> float:
    """From the first unit's arrival to the last picture, as fast as the decoder takes them."""
    sink, stop = Counting(len(units)), threading.Event()
    config = IngestConfig(decode_queue_frames=len(units))
    decoding = LiveDecoding(sink, config, lambda: None, lambda reason: None)
    thread = threading.Thread(target=decoding.run, args=(stop,))
    start = time.perf_counter()
    thread.start()
    for unit in units:
        decoding.put(unit, after_loss=False)
    complete = sink.complete.wait(_TIMEOUT_S)
    taken_s = time.perf_counter() - start
    stop.set()
    thread.join(_TIMEOUT_S)
    decoding.close()
    if not complete:
        raise TimeoutError(f"the live path did not finish {len(units)} pictures in {_TIMEOUT_S} s")
    if decodes and sink.lost:
        raise RuntimeError(f"{sink.lost} of {len(units)} pictures were let go: no time of decoding")
    return taken_s


def _bare_s(clip: Path, thread_type: str = "", threads: int = 0) -> float:
    start = time.perf_counter()
    with av.open(str(clip)) as container:
        stream = container.streams.video[0]
        if thread_type:
            stream.codec_context.thread_type = thread_type
            stream.codec_context.thread_count = threads
        for picture in container.decode(stream):
            picture.to_ndarray(format="rgb24")
    return time.perf_counter() - start


def _bare_units_s(units: list[EncodedFrame], thread_type: str = "", threads: int = 0) -> float:
    """The same units that the live path gets, one after the other."""
    start = time.perf_counter()
    context = av.CodecContext.create("h264", "r")
    if thread_type:
        context.thread_type, context.thread_count = thread_type, threads
    for packet in [*(av.Packet(unit.data) for unit in units), None]:
        for picture in context.decode(packet):
            picture.to_ndarray(format="rgb24")
    return time.perf_counter() - start


def _units_of(clip: Path) -> list[EncodedFrame]:
    with av.open(str(clip)) as container:
        stream = container.streams.video[0]
        to_annexb = av.bitstream.BitStreamFilterContext("h264_mp4toannexb", stream)
        packets = [p for packet in container.demux(stream) for p in to_annexb.filter(packet)]
        return [
            EncodedFrame(
                id=number, stamp_ns=number, arrival_ns=0, data=bytes(p), is_key=p.is_keyframe
            )
            for number, p in enumerate(packets)
            if p.size
        ]


def _encode(path: Path) -> None:
    rng = np.random.default_rng(1)
    texture = _texture(rng, 4096)
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=RATE_HZ)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.bit_rate, stream.gop_size = BITS_PER_S, RATE_HZ
        stream.options = {"preset": "veryfast", "bf": "0"}
        for number in range(FRAMES):
            rgb = _view(texture, number, rng)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(rgb, format="rgb24")))
        container.mux(stream.encode(None))


def _view(
    texture: UInt8[np.ndarray, "n n 3"], number: int, rng: np.random.Generator
) -> UInt8[np.ndarray, "h w 3"]:
    angle_rad = 0.03 * np.sin(number / 40)
    c, s = np.cos(angle_rad), np.sin(angle_rad)
    texture_from_view = np.array(
        [[c, -s, 700 + 3 * number], [s, c, 900 + 60 * np.sin(number / 30)]], np.float32
    )
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    picture = cv2.warpAffine(texture, texture_from_view, (WIDTH, HEIGHT), flags=flags)
    noise = rng.integers(-3, 4, picture.shape, dtype=np.int16)
    noisy: UInt8[np.ndarray, "h w 3"] = np.clip(picture + noise, 0, 255).astype(np.uint8)
    return noisy


def _texture(rng: np.random.Generator, size_px: int) -> UInt8[np.ndarray, "n n 3"]:
    """Noise whose amplitude falls with its frequency, as in photographs."""
    total = np.zeros((size_px, size_px, 3), np.float32)
    for octave in range(2, 10):
        layer = rng.standard_normal((2**octave, 2**octave, 3)).astype(np.float32)
        layer = 0.7 * layer.mean(2, keepdims=True) + 0.3 * layer
        large = cv2.resize(layer, (size_px, size_px), interpolation=cv2.INTER_CUBIC)
        total += large * np.float32(2.0 ** (-0.8 * octave))
    total -= total.min()
    texture: UInt8[np.ndarray, "n n 3"] = (total * (255 / total.max())).astype(np.uint8)
    return texture


if __name__ == "__main__":
    measure(Benchmark("ingest"))
