# SPDX-License-Identifier: Apache-2.0
"""What a source of video is, and which one an address means."""

from __future__ import annotations

import re
import threading
from dataclasses import replace
from pathlib import Path
from typing import Protocol, runtime_checkable
from urllib.parse import unquote, urlsplit

from worldsystem_core.errors import SourceError
from worldsystem_ingest.config import IngestConfig
from worldsystem_ingest.image_folder import ImageFolder
from worldsystem_ingest.live_url import LiveUrl
from worldsystem_ingest.server import ServerSource
from worldsystem_ingest.sink import Sink, Summary
from worldsystem_ingest.video_file import VideoFile

_LIVE_SCHEMES = ("rtsp", "rtsps", "rtmp", "rtmps", "srt", "udp", "rtp", "tcp", "http", "https")
_SERVER_SCHEMES = ("ws", "server")
_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]+):")
_DEVICES = Path("/dev")
_DEVICE_NAMES = Path("/sys/class/video4linux")


@runtime_checkable
class Source(Protocol):
    """Yields one stream. `live` ones cannot wait; the others may be kept waiting by the sink."""

    live: bool

    def run(self, sink: Sink, stop: threading.Event) -> Summary:
        """Deliver to `sink` until the end or until `stop`; raises `SourceError`."""

    def facts(self) -> dict[str, object]:
        """What is known of the source now, as `/diagnostics` shows it; safe from any thread."""

    def problem(self) -> str:
        """What is wrong now, in words; empty while all is well; safe from any thread."""


def open_source(url: str, config: IngestConfig) -> Source:
    """The source that `url` means; raises `SourceError` when there is none.

    A path is a video file or a folder of images; `file:` works too. `camera:N` and
    `v4l2:/dev/videoN` are cameras of this machine. `server:` listens as configured, and
    `ws://host:port` there, for the drone app. Every other known scheme is live video.
    """
    match = _SCHEME.match(url)
    scheme = match.group(1).lower() if match else ""
    if not url:
        raise SourceError("no source given; give a file, a folder of images, a URL, or server:")
    if not scheme or Path(url).exists():
        return _from_path(Path(url), config)
    rest = url[len(scheme) + 1 :]
    if scheme == "file":
        return _from_path(Path(unquote(urlsplit(url).path)), config)
    if scheme in _SERVER_SCHEMES:
        return ServerSource(_listening_at(url, config))
    if scheme in ("camera", "v4l2"):
        return LiveUrl(_device(rest), config, format="v4l2")
    if scheme in _LIVE_SCHEMES:
        return LiveUrl(url, config)
    known = ", ".join(f"{name}:" for name in (*_SERVER_SCHEMES, "camera", "v4l2", *_LIVE_SCHEMES))
    raise SourceError(f"unknown kind of source '{scheme}:' in {url}; known: a path, file:, {known}")


def cameras() -> list[str]:
    """The cameras of this machine, as `/dev/videoN (name)`."""
    found = sorted(_DEVICES.glob("video*"), key=lambda path: (len(path.name), path.name))
    return [f"{path} ({_device_name(path)})" for path in found]


def _from_path(path: Path, config: IngestConfig) -> Source:
    path = path.expanduser()
    return ImageFolder(path, config) if path.is_dir() else VideoFile(path, config)


def _listening_at(url: str, config: IngestConfig) -> IngestConfig:
    try:
        parts = urlsplit(url if "//" in url else url.replace(":", "://", 1))
        port = parts.port
    except ValueError as error:
        raise SourceError(f"{url}: {error}; write it like ws://127.0.0.1:5001") from error
    if parts.hostname:
        config = replace(config, host=parts.hostname)
    return config if port is None else replace(config, port=port)


def _device(name: str) -> str:
    path = Path(f"{_DEVICES}/video{name}") if name.isdecimal() else Path(name)
    if not name or not path.exists():
        here = ", ".join(cameras()) or "none"
        raise SourceError(f"there is no camera {name or path}; cameras of this machine: {here}")
    return str(path)


def _device_name(path: Path) -> str:
    name = _DEVICE_NAMES / path.name / "name"
    return name.read_text().strip() if name.is_file() else "unnamed"
