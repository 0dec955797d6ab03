# SPDX-License-Identifier: Apache-2.0
"""Rendered and encoded flights on disk, so that a flight is rendered once.

A file's name is a hash of every setting that changes a picture and of the code that draws it. It
is written beside its place and renamed when whole; one that cannot be read is made anew. Where
none can be kept, as on a full disk, the flight is rendered each time.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import msgpack

from worldsystem_sim.config import SimConfig
from worldsystem_sim.encode import AccessUnit, Encoder
from worldsystem_sim.faults import exposures
from worldsystem_sim.flight import flight
from worldsystem_sim.render import RenderedView, Renderer
from worldsystem_sim.scene import build_scene
from worldsystem_sim.version import code_digest

_log = logging.getLogger(__name__)
Progress = Callable[[int, int], None]
_MOST_THREADS = 8
_PICTURE_SETTINGS = (
    "seed",
    "flight",
    "duration_s",
    "fps",
    "width",
    "height",
    "fov_deg",
    "bitrate_kbps",
    "exposure",
)
_DRAWING_CODE = (
    "scene",
    "paints",
    "shapes",
    "buildings",
    "things",
    "noise",
    "textures",
    "raster",
    "shading",
    "render",
    "flight",
    "routes",
    "encode",
    "faults",
)


@dataclass(frozen=True)
class _Damaged(Exception):
    """A cache file is not what was written."""

    path: Path


def cache_folder() -> Path:
    """`WORLDSYSTEM_CACHE`, or `~/.cache/worldsystem`."""
    return Path(os.environ.get("WORLDSYSTEM_CACHE") or Path.home() / ".cache" / "worldsystem")


def cache_path(config: SimConfig) -> Path:
    """Where the pictures of this flight are kept."""
    settings = {name: getattr(config, name) for name in _PICTURE_SETTINGS}
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    digest.update(code_digest(*_DRAWING_CODE).encode())
    return cache_folder() / "sim" / f"{config.flight}-{digest.hexdigest()[:20]}.flight"


def access_units(config: SimConfig, progress: Progress | None = None) -> Iterator[AccessUnit]:
    """The encoded pictures of a flight, in order: from the cache, or as they are rendered.

    `progress(done, total)` is called after each rendered picture, and once when all were cached.
    """
    path = cache_path(config)
    try:
        units = _read(path, config.frame_count)
    except OSError:  # most often it is not there yet
        yield from _render_into(path, config, progress)
        return
    except _Damaged:
        _log.warning("cached flight %s is damaged; rendering it again", path)
        yield from _render_into(path, config, progress)
        return
    if progress:
        progress(len(units), len(units))
    yield from units


def _read(path: Path, count: int) -> list[AccessUnit]:
    content = path.read_bytes()
    if hashlib.sha256(content[32:]).digest() != content[:32]:
        raise _Damaged(path)
    units = [AccessUnit(*fields) for fields in msgpack.unpackb(content[32:])]
    if len(units) != count:
        raise _Damaged(path)
    return units


def _render_into(path: Path, config: SimConfig, progress: Progress | None) -> Iterator[AccessUnit]:
    units = []
    for unit in _rendered(config):
        units.append(unit)
        if progress:
            progress(len(units), config.frame_count)
        yield unit
    try:
        _write(path, units)
    except OSError as error:
        _log.warning("the flight is not kept for the next time: %s", error)


def _rendered(config: SimConfig) -> Iterator[AccessUnit]:
    """Pictures are rendered side by side, one thread each, and encoded in their order."""
    scene = build_scene(config.seed)
    path = flight(config.flight, config.seed, config.duration_s, scene)
    renderer = Renderer(scene, config.camera)
    encoder = Encoder(config.width, config.height, config.fps, config.bitrate_kbps)
    threads = max(1, min(_MOST_THREADS, os.cpu_count() or 1))
    waiting: deque[Future[RenderedView]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="render") as pool:
        try:
            for number, gain in enumerate(exposures(config)):
                pose = path.world_from_cam(number / config.fps)
                waiting.append(pool.submit(renderer.render, pose, gain))
                if len(waiting) > 2 * threads:
                    yield encoder.encode(waiting.popleft().result().rgb)
            while waiting:
                yield encoder.encode(waiting.popleft().result().rgb)
        finally:
            pool.shutdown(cancel_futures=True)


def _write(path: Path, units: list[AccessUnit]) -> None:
    body: bytes = msgpack.packb([(u.is_key, u.sps, u.pps, u.slices) for u in units])
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".part-") as folder:
        whole = Path(folder) / path.name
        whole.write_bytes(hashlib.sha256(body).digest() + body)
        os.replace(whole, path)
