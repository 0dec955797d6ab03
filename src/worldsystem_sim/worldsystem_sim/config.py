# SPDX-License-Identifier: Apache-2.0
"""Settings of the simulator."""

from __future__ import annotations

import math
from dataclasses import dataclass
from urllib.parse import urlsplit

from worldsystem_core.config import Config, param
from worldsystem_core.errors import ConfigError
from worldsystem_core.frames import Camera
from worldsystem_core.shown_url import without_secrets

FLIGHTS = ("demo", "orbit", "survey", "facade", "flythrough", "hover", "yaw")


@dataclass(frozen=True, kw_only=True)
class SimConfig(Config):
    """A simulated drone: scene, flight, camera, link and the faults on it."""

    seed: int = param(1, "draws the scene, the flight and every fault", low=0, high=2**31 - 1)
    flight: str = param("demo", "which flight", choices=FLIGHTS)
    duration_s: float = param(60.0, "length of the flight [s]", low=1.0, high=3600.0)
    fps: float = param(15.0, "pictures per second [Hz]", low=1.0, high=120.0)
    width: int = param(640, "picture width [px], even", low=16, high=4096)
    height: int = param(360, "picture height [px], even", low=16, high=4096)
    fov_deg: float = param(75.0, "horizontal field of view [deg]", low=10.0, high=150.0)
    bitrate_kbps: int = param(4000, "H.264 bit rate [kbit/s]", low=50, high=100000)
    url: str = param("ws://127.0.0.1:5001", "server, without the path")
    out: str = param("", "folder for ground truth (empty: none)")
    loop: bool = param(False, "start the flight anew when it ends")
    loss: float = param(0.0, "share of picture packets lost", low=0.0, high=1.0)
    corrupt: float = param(0.0, "share of picture packets damaged", low=0.0, high=1.0)
    jitter_s: float = param(
        0.0, "mean extra delay of a packet, at most 5 times that [s]", low=0.0, high=5.0
    )
    disconnect_every_s: float = param(
        0.0, "mean time between broken connections [s] (0: never)", low=0.0
    )
    message_loss: float = param(0.0, "share of all video messages lost", low=0.0, high=1.0)
    burst_loss: float = param(
        0.0, "share of pictures at which a burst of losses begins", low=0.0, high=1.0
    )
    burst_frames: int = param(8, "pictures lost in one burst", low=1, high=1000)
    duplicate: float = param(0.0, "share of picture packets sent twice", low=0.0, high=1.0)
    reorder: float = param(0.0, "share of pictures sent after the next one", low=0.0, high=1.0)
    truncate: float = param(0.0, "share of picture packets cut off", low=0.0, high=1.0)
    bit_flip: float = param(0.0, "share of picture packets with flipped bits", low=0.0, high=1.0)
    lose_parameter_sets: float = param(
        0.0, "share of key frames that come without SPS and PPS", low=0.0, high=1.0
    )
    stamp_back: float = param(
        0.0, "share of pictures stamped up to 10 s too early", low=0.0, high=1.0
    )
    clock_offset_s: float = param(0.0, "how far the drone's clock is ahead [s]", low=-2e9, high=2e9)
    clock_drift_ppm: float = param(
        0.0, "how much the drone's clock gains [ppm]", low=-1000.0, high=1000.0
    )
    exposure: float = param(0.0, "depth of brightness swings [stops]", low=0.0, high=4.0)
    gps_noise_m: float = param(0.0, "standard deviation of GPS fixes [m]", low=0.0, high=50.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("width", "height"):
            if (value := getattr(self, name)) % 2:
                raise ConfigError(
                    f"SimConfig.{name} = {value} is odd, which H.264 has no colours for; "
                    f"take {value - 1} or {value + 1}"
                )
        _check_url(self.url)

    @property
    def frame_count(self) -> int:
        """Pictures of one flight."""
        return max(1, round(self.duration_s * self.fps))

    @property
    def camera(self) -> Camera:
        """The camera that the settings describe."""
        return Camera.from_horizontal_fov(self.width, self.height, math.radians(self.fov_deg))


def _check_url(url: str) -> None:
    """Raise `ConfigError` for what is no address of a WebSocket server."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("ws", "wss") and parts.hostname and parts.port != 0
        why = "" if usable and not parts.fragment else "names no server"
    except ValueError as error:
        why = "names no server" if "@" in url else str(error)  # it quotes what it takes for a port
    if why:
        shown = without_secrets(url)
        raise ConfigError(f"SimConfig.url = {shown!r}: {why}; write it as ws://127.0.0.1:5001")
