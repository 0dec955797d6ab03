# SPDX-License-Identifier: Apache-2.0
"""What a source of video is, and which one an address means."""

from __future__ import annotations

import difflib
import logging
import os
import re
import threading
from dataclasses import replace
from pathlib import Path
from typing import Protocol, runtime_checkable
from urllib.parse import unquote, urlsplit

from worldsystem_core.errors import SourceError
from worldsystem_core.shown_url import without_secrets
from worldsystem_ingest.bag import BagSource
from worldsystem_ingest.bag.recording import is_bag
from worldsystem_ingest.camera_device import CameraDevice
from worldsystem_ingest.config import IngestConfig
from worldsystem_ingest.files.image_folder import ImageFolder
from worldsystem_ingest.files.video_file import VideoFile, missing
from worldsystem_ingest.pushed import PushedSource
from worldsystem_ingest.replay import ReplayedSource, is_replay
from worldsystem_ingest.server import ServerSource, ServingSource
from worldsystem_ingest.sink import Sink, Summary
from worldsystem_ingest.thinning import ThinnedSource
from worldsystem_ingest.url.live_url import LiveUrl
from worldsystem_ingest.url.ws_client import WsClient

_log = logging.getLogger(__name__)
_LIVE_SCHEMES = ("rtsp", "rtsps", "rtmp", "rtmps", "srt", "udp", "rtp", "tcp", "http", "https")
_CLIENT_SCHEMES = ("ws", "wss")
_SERVER_SCHEMES = ("server", "webrtc")
_CAMERA_SCHEMES = ("camera", "v4l2")
_SCHEMES = (
    "file",
    "bag",
    *_SERVER_SCHEMES,
    *_CLIENT_SCHEMES,
    *_CAMERA_SCHEMES,
    *_LIVE_SCHEMES,
)
_OTHER_NAMES = {"whip": "webrtc", "webcam": "camera", "video": "camera", "mcap": "bag"}
_ANY_HOST, _LOCAL_HOSTS = ("0.0.0.0", "::"), ("127.0.0.1", "localhost", "::1")
_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]+):")


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

    A path is a video file, a folder of images or a bag; `file:` and `bag:` work too. `camera:N` and
    `v4l2:/dev/videoN?size=1280x720&fps=30&format=mjpeg` are cameras of this machine. `server:`
    listens as configured, `server://host:port` there; `webrtc:` is the same server, for browsers.
    `ws:` and `wss:` connect to a server that relays video. Every other known scheme is live video.
    `speed`, `start_s`, `play_s` and `loop` say how a file or a bag is played; with any of them
    `realtime` means a `speed` of 1, if none is given, and each round's first picture is of now.
    With `frame_step` only every so many pictures are handed on, with `push_url` the first stream is
    pushed to an RTSP server, and with `serve` relay, health and metrics are there for any source.
    """
    if is_replay(config):
        pace = config.speed or (1.0 if config.realtime else 0.0)
        source: Source = ReplayedSource(
            _source(url, replace(config, realtime=False)), replace(config, speed=pace)
        )
    else:
        source = _source(url, config)
    if config.serve and not isinstance(source, ServerSource):
        source = ServingSource(source, config)
    if config.push_url:
        source = PushedSource(source, config)
    return source if config.frame_step == 1 else ThinnedSource(source, config.frame_step)


def check_address(url: str) -> None:
    """Raise the `SourceError` of `open_source` for a path where nothing is, and an unknown scheme.

    Nothing is opened: what is there may still be no source.
    """
    scheme, path = _scheme(url), _at_home(url)
    if scheme == "file" and not path.exists():
        path = _at_home(unquote(urlsplit(url).path))
    if url and scheme in ("", "file") and not path.exists():
        raise missing(path)
    if scheme and scheme not in _SCHEMES and not path.exists():
        raise SourceError(_unknown(scheme, url))


def _at_home(path: str) -> Path:
    """The path with its home written out; that of nobody stays as it is, and is not there."""
    return Path(os.path.expanduser(path))


def _scheme(url: str) -> str:
    match = _SCHEME.match(url)
    return match.group(1).lower() if match else ""


def _source(url: str, config: IngestConfig) -> Source:
    scheme = _scheme(url)
    if not url:
        raise SourceError("no source given; give a file, a folder of images, a URL, or server:")
    if not scheme or Path(url).exists():
        return _from_path(Path(url), config)
    rest = url[len(scheme) + 1 :]
    if scheme == "file":
        return _from_path(Path(unquote(urlsplit(url).path)), config)
    if scheme == "bag":
        return BagSource(_at_home(unquote(rest.removeprefix("//"))), config)
    if scheme in _SERVER_SCHEMES:
        listening = _listening_at(url, config)
        if scheme == "webrtc":
            _tell_page(listening)
        return ServerSource(listening)
    if scheme in _CLIENT_SCHEMES:
        return WsClient(url, config)
    if scheme in _CAMERA_SCHEMES:
        return CameraDevice(rest.removeprefix("//"), config)
    if scheme in _LIVE_SCHEMES:
        return LiveUrl(url, config)
    raise SourceError(_unknown(scheme, url))


def _from_path(path: Path, config: IngestConfig) -> Source:
    path = _at_home(str(path))
    if path.exists() and is_bag(path):
        return BagSource(path, config)
    return ImageFolder(path, config) if path.is_dir() else VideoFile(path, config)


def _listening_at(url: str, config: IngestConfig) -> IngestConfig:
    try:
        parts = urlsplit(url if "//" in url else url.replace(":", "://", 1))
        port = parts.port
    except ValueError as error:
        shown = without_secrets(url)
        raise SourceError(f"{shown}: {error}; write it like server://127.0.0.1:5001") from error
    if parts.hostname:
        config = replace(config, host=parts.hostname)
    return config if port is None else replace(config, port=port)


def _tell_page(config: IngestConfig) -> None:
    """Where a phone's browser finds the page that sends its camera."""
    secure = bool(config.tls_certificate)
    host = "<address of this machine>" if config.host in _ANY_HOST else config.host
    scheme, port = ("https" if secure else "http"), config.port or "<port>"
    _log.info("a browser's camera is sent from %s://%s:%s/camera", scheme, host, port)
    if config.host in _LOCAL_HOSTS:
        _log.warning("only browsers of this machine reach %s; set `host` to 0.0.0.0", host)
    elif not secure:
        _log.warning("browsers give their camera to https pages only; set `tls_certificate`")


def _unknown(scheme: str, url: str) -> str:
    url = without_secrets(url)
    if scheme == "sim":
        return (
            f"{url} is the simulated drone, a program of its own that sends to `server:`; "
            f"`worldsystem run {url}` starts both, `worldsystem sim ws://host:port` it alone"
        )
    names = (*_SCHEMES, *_OTHER_NAMES)
    swapped = [name for name in names if sorted(name) == sorted(scheme)]
    near = swapped or difflib.get_close_matches(scheme, names, 1)
    meant = _OTHER_NAMES.get(near[0], near[0]) if near else ""
    hint = f"; did you mean {meant}:?" if meant else ""
    known = ", ".join(f"{name}:" for name in _SCHEMES)
    return f"unknown kind of source '{scheme}:' in {url}{hint} Known: a path, {known}"
