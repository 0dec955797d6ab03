# SPDX-License-Identifier: Apache-2.0
"""Settings of the viewers."""

from __future__ import annotations

from dataclasses import dataclass

from worldsystem_core.config import Config, param
from worldsystem_core.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class ViewerConfig(Config):
    """Which viewers run, where they listen, and how much they send."""

    host: str = param("127.0.0.1", "address that every viewer listens on; 0.0.0.0 opens it to all")
    web: bool = param(True, "serve the web page")
    web_port: int = param(8080, "port of the web page; 0 picks a free one", low=0, high=65535)
    max_clients: int = param(20, "web pages served at once", low=1, high=1000)
    update_hz: float = param(20.0, "how often a page is sent what is new [Hz]", low=0.5, high=60.0)
    mesh: str = param(
        "auto",
        "how pages get the surface: raw, coded for a thin line; auto: raw on this machine",
        choices=("auto", "raw", "code"),
    )
    mesh_mbps: float = param(
        1.0, "most that the coded surface takes of one page's line [Mbit/s]; 0: no limit", low=0.0
    )
    rest_mbps: float = param(
        0.5,
        "most that pictures, points and objects take of a line where the surface comes coded "
        "[Mbit/s]; 0: no limit",
        low=0.0,
    )
    cloud_points: int = param(
        2_000_000, "points that pages may show at once; the oldest go", low=10_000, high=2_000_000
    )
    surface_mb: float = param(
        1024.0,
        "surface held for pages; above it what changed longest ago goes [MiB]",
        low=1.0,
    )
    history_mb: float = param(512.0, "past held for pages that look back; 0: none [MiB]", low=0.0)
    album_mb: float = param(
        64.0,
        "pictures and sightings of objects that pages may ask for; above it go the objects that "
        "were seen longest ago [MiB]",
        low=0.1,
    )
    linger_s: float = param(
        0.0,
        "how long pages that are open may go on looking after the input's end; closing them ends "
        "the run, and so does Ctrl-C [s]",
        low=0.0,
    )
    token_file: str = param(
        "",
        "JSON file with the page's token under `viewer` or `*`; empty: everybody who reaches the "
        "address may look",
    )
    tls_certificate: str = param("", "certificate chain (PEM) for https and wss; empty: no TLS")
    tls_key: str = param("", "private key (PEM) of the certificate")
    website_mesh: bool = param(
        False, "also serve the surface to the website of before, on /ws/mesh of the web page's port"
    )
    control: bool = param(
        False,
        "let Foxglove call services, and set parameters of nodes that allow it (ours do not); "
        "without it viewers only look",
    )
    splats_mbps: float = param(
        4.0,
        "most that splats take of a line to another machine while a page shows them; 0: no limit "
        "[Mbit/s]",
        low=0.0,
    )
    image_fps: float = param(5.0, "live pictures sent to a page [1/s]", low=0.1, high=30.0)
    image_width: int = param(640, "width of the live picture [px]", low=64, high=4096)
    jpeg_quality: int = param(75, "JPEG quality of the live picture", low=10, high=100)
    foxglove: bool = param(True, "serve the topics to Foxglove")
    foxglove_port: int = param(
        8765, "port of the Foxglove server; 0 picks a free one", low=0, high=65535
    )
    rerun: bool = param(False, "log to Rerun")
    rerun_port: int = param(9876, "port of the Rerun server", low=1, high=65535)
    rerun_web_port: int = param(9090, "port of the Rerun web viewer", low=1, high=65535)
    rerun_serve: bool = param(True, "start a Rerun server with its web viewer")
    rerun_mb: int = param(
        512,
        "what the Rerun server keeps for those who come late; it takes more than that [MiB]",
        low=16,
    )
    restore: bool = param(
        False, "ask at the start for the keyframes of before: after a crash of this stage alone"
    )
    rerun_file: str = param("", "also write the Rerun log to this .rrd file; empty: none")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rerun and not (self.rerun_serve or self.rerun_file):
            raise ConfigError(
                "viewer.rerun needs rerun_serve or rerun_file: what is logged to neither stays in "
                "memory; set one, or viewer.rerun=false"
            )
