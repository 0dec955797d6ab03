# SPDX-License-Identifier: Apache-2.0
"""Settings of ingest."""

from __future__ import annotations

from dataclasses import dataclass

from worldsystem_core.config import Config, param


@dataclass(frozen=True, kw_only=True)
class IngestConfig(Config):
    """Where video comes from, how it is decoded, and what the server allows."""

    source: str = param(
        "server:", "file, folder of images, URL, camera:N, or server: for the drone app"
    )
    stream: str = param("camera", "name of the stream that pictures are published under")
    focal_px: float = param(0.0, "focal length of a file or URL; 0 = unknown [px]", low=0.0)
    fps: float = param(30.0, "rate of sources without stamps [Hz]", low=0.1, high=1000.0)
    realtime: bool = param(False, "play files at the pace of their stamps")
    raw_outside_max_px: int = param(
        1280, "longest side of raw images published to other processes [px]", low=16
    )

    host: str = param("127.0.0.1", "address the server listens on; 0.0.0.0 = every network")
    port: int = param(5001, "port the server listens on; 0 = any free one", low=0, high=65535)
    max_message_mb: float = param(8.0, "largest message the server accepts [MiB]", low=0.001)
    max_consumers: int = param(16, "most consumers of the relayed video", low=0)
    relay_queue_frames: int = param(300, "pictures waiting for one consumer at most", low=2)
    relay_queue_mb: float = param(32.0, "bytes waiting for one consumer at most [MiB]", low=0.01)
    send_timeout_s: float = param(30.0, "a consumer that takes nothing so long goes [s]", low=0.1)

    decode_queue_frames: int = param(60, "access units waiting for the decoder at most", low=1)
    clock_window_s: float = param(30.0, "span of the clock estimate [s]", low=1.0, high=600.0)

    stall_s: float = param(3.0, "a URL silent for so long is opened again [s]", low=0.1)
    backoff_first_s: float = param(0.5, "first wait before opening a URL again [s]", low=0.01)
    backoff_max_s: float = param(8.0, "longest wait before opening a URL again [s]", low=0.01)
    connect_attempts: int = param(
        0, "failed attempts in a row until a URL is given up; 0 = never", low=0
    )
