# SPDX-License-Identifier: Apache-2.0
"""Settings of ingest."""

from __future__ import annotations

from dataclasses import dataclass

from worldsystem_core.config import Config, param


@dataclass(frozen=True, kw_only=True)
class IngestConfig(Config):
    """Where video comes from, how it is decoded, and what the server allows."""

    source: str = param(
        "server:", "file, folder of images, bag, URL, camera:N, or server: for the drone app"
    )
    stream: str = param(
        "camera",
        "name of the stream that is reconstructed; one that a sender calls otherwise "
        "(`?stream=NAME`) has topics in a namespace of its name",
    )
    focal_px: float = param(0.0, "focal length of a file or URL; 0 = unknown [px]", low=0.0)
    fps: float = param(30.0, "rate of sources without stamps [Hz]", low=0.1, high=1000.0)
    realtime: bool = param(False, "play files at the pace of their stamps")
    file_time: str = param(
        "zero",
        "where the stamps of a video file begin: at zero, or at the time of recording that its "
        "metadata tell; other sources have stamps of their own",
        choices=("zero", "recorded"),
    )
    speed: float = param(
        0.0, "pace of files and bags with stamps as recorded; 0: as fast as they are taken", low=0.0
    )
    start_s: float = param(0.0, "where in a file or bag to begin [s]", low=0.0)
    play_s: float = param(0.0, "how much of it to play; 0: to its end [s]", low=0.0)
    loop: bool = param(False, "play a file or bag again when it ends")
    clock: bool = param(False, "publish the pictures' times on /clock, for nodes that use sim time")
    frame_step: int = param(1, "every so many pictures one is handed on", low=1)
    topic: str = param("", "topic of a bag to play; empty: its only one with pictures")
    topics: str = param(
        "", "regular expression of a bag's topics to play; empty: pictures, camera and telemetry"
    )
    raw_outside_max_px: int = param(
        1280,
        "longest side of raw images offered to other processes; runs of separate stages set more "
        "[px]",
        low=16,
    )

    host: str = param("127.0.0.1", "address the server listens on; 0.0.0.0 = every network")
    port: int = param(5001, "port the server listens on; 0 = any free one", low=0, high=65535)
    max_message_mb: float = param(8.0, "largest message the server accepts [MiB]", low=0.001)
    max_streams: int = param(8, "most streams of video at once", low=1, high=64)
    max_phones: int = param(16, "most connections that send telemetry", low=0)
    max_consumers: int = param(64, "most consumers of the relayed video", low=0)
    max_receive_mbps: float = param(
        200.0, "a sender that sends more is slowed down to this [Mbit/s]", low=0.1
    )
    token_file: str = param(
        "", "JSON file of tokens by stream name, `*` for all others; empty: everybody may connect"
    )
    tls_certificate: str = param("", "certificate chain (PEM) for wss and https; empty: no TLS")
    tls_key: str = param("", "private key (PEM) of the certificate")
    serve: bool = param(False, "serve relay, health and metrics for other sources than server: too")
    relay_queue_frames: int = param(300, "pictures waiting for one consumer at most", low=2)
    relay_queue_mb: float = param(32.0, "bytes waiting for one consumer at most [MiB]", low=0.01)
    send_timeout_s: float = param(30.0, "a consumer that takes nothing so long goes [s]", low=0.1)

    webrtc_wait_s: float = param(
        0.25, "how long pictures wait for a lost WebRTC packet to come again [s]", low=0.0, high=5.0
    )
    stun_servers: str = param(
        "",
        "STUN servers by which browsers in other networks find this one, as stun:host:port, "
        "separated by commas; empty: none is asked",
    )

    broken_pictures: str = param(
        "skip",
        "pictures that cannot be decoded whole: left out until the next key frame, or shown with "
        "what the decoder could conceal",
        choices=("skip", "show"),
    )
    decode_threads: int = param(
        0, "threads that decode one stream where that adds no delay; 0: as many as pay", low=0
    )
    decode_queue_frames: int = param(60, "access units waiting for the decoder at most", low=1)
    clock_window_s: float = param(30.0, "span of the clock estimate [s]", low=1.0, high=600.0)

    feedback: bool = param(
        True, "tell senders when to send a key frame, and when to lower their bit rate"
    )
    low_bandwidth_mbps: float = param(
        3.0, "a stream that sends less on average is warned of [Mbit/s]", low=0.0
    )

    push_url: str = param(
        "", "RTSP server that the first stream is pushed to, as rtsp://host:8554/drone"
    )

    stall_s: float = param(3.0, "a URL silent for so long is opened again [s]", low=0.1)
    backoff_first_s: float = param(0.25, "first wait before opening a URL again [s]", low=0.01)
    backoff_max_s: float = param(1.0, "longest wait before opening a URL again [s]", low=0.01)
    connect_attempts: int = param(
        0, "failed attempts in a row until a URL is given up; 0 = never", low=0
    )
