# SPDX-License-Identifier: Apache-2.0
"""The web page's server: static files and one WebSocket, in a thread of its own."""

from __future__ import annotations

import asyncio
import errno
import logging
import threading
import time
import uuid
from typing import Any

import numpy as np
from aiohttp import web
from jaxtyping import UInt8, UInt16

from worldsystem_core.access import tls_context
from worldsystem_core.errors import PortInUse
from worldsystem_core.http_log import http_log
from worldsystem_core.objects import MapObjects, TrackFrame
from worldsystem_core.priority import lower_thread_priority
from worldsystem_core.reconstruction import Keyframe, MovedKeyframes, Pose, RemovedKeyframes
from worldsystem_core.splats.delta import SplatDelta
from worldsystem_core.surface import MeshDelta
from worldsystem_core.trajectory import StampedPoses
from worldsystem_viewer.addresses import cannot_listen
from worldsystem_viewer.album import Album
from worldsystem_viewer.config import ViewerConfig
from worldsystem_viewer.history import History
from worldsystem_viewer.page_client import PageClients, Shown
from worldsystem_viewer.page_files import add_page
from worldsystem_viewer.page_gate import PageGate
from worldsystem_viewer.page_mesh import SurfaceRounds
from worldsystem_viewer.page_messages import (
    objects_message,
    pose_message,
    tracks_message,
)
from worldsystem_viewer.page_steps import StateSteps
from worldsystem_viewer.picture import PictureEncoder
from worldsystem_viewer.protocol import ImageUpdate, Message, StatusUpdate
from worldsystem_viewer.splats.page_feed import SplatPages
from worldsystem_viewer.whole_picture import whole_tracks
from worldsystem_viewer.world import World

log = logging.getLogger(__name__)
_START_TIMEOUT_S = 10.0
_TLS_S, _BACKLOG = 5.0, 256
_STATUS_PERIOD_S = 1.0
_LOOK_PERIOD_S = 0.1
_NICENESS = 10  # those who map go before those who look
_BYTES_PER_VERTEX = 40  # with its share of faces


class PageServer:
    """Shows the world to web pages; every input returns at once and may come from any one thread.

    Pages get the newest state, at their own pace: a slow or late one skips to the newest and
    never holds up another. `start` raises `PortInUse`, or `ConfigError` for a host that is none of
    this machine.
    """

    def __init__(self, config: ViewerConfig) -> None:
        self._config = config
        vertices = int(config.surface_mb * 2**20 / _BYTES_PER_VERTEX)
        self._world = World(config.cloud_points, vertices)
        surface_bytes, history_bytes = (
            int(mb * 2**20) for mb in (config.surface_mb, config.history_mb)
        )
        self._history = History(history_bytes, surface_bytes) if history_bytes else None
        self._album = Album(int(config.album_mb * 2**20))
        shown = Shown(
            world=self._world,
            history=self._history or History(0),
            album=self._album,
            session=uuid.uuid4().hex,
            rounds=SurfaceRounds(self._world),
            steps=StateSteps(self._world, config.update_hz),
        )
        self._clients = PageClients(config, shown)
        self._gate = PageGate(config.max_clients)
        self._tls = tls_context(config)
        self._splats = SplatPages(self._clients.admit, config.splats_mbps, most=config.max_clients)
        self._picture = PictureEncoder(
            config,
            wanted=lambda: self._clients.shows_pictures,
            publish=self._put_picture,
            remembered=self._history is not None,
        )
        self._values: dict[str, Any] = {}
        self._film: tuple[int, ...] | None = None  # (h, w) of the newest picture
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="page_server", daemon=True)
        self._ready = threading.Event()
        self._stop = asyncio.Event()
        self._failure: OSError | UnicodeError | None = None
        self.port = config.web_port

    @property
    def block_count(self) -> int:
        """Blocks of the surface that a page would be given."""
        return self._world.block_count

    @property
    def client_count(self) -> int:
        """Pages connected now."""
        return self._clients.count

    @property
    def dropped(self) -> dict[str, int]:
        """What was let go so far: pictures never encoded, states that a slow page skipped."""
        return {
            "pictures": self._picture.dropped,
            "states": self._clients.skipped,
            "blocks": self._world.let_go,
        }

    def facts(self) -> dict[str, object]:
        """What `/diagnostics` shows of the page: who looks, what is held, what was let go."""
        past = self._history
        return {
            "viewers": self.client_count,
            "blocks": self.block_count,
            "history_bytes": past.bytes if past else 0,
            "history_surface_bytes": past.surface_bytes if past else 0,
            **{f"dropped_{what}": count for what, count in self.dropped.items()},
        }

    def start(self) -> None:
        """Listen at `host` and `web_port`."""
        self._thread.start()
        self._ready.wait(_START_TIMEOUT_S)
        if (failure := self._failure) is not None:
            self._thread.join(timeout=_START_TIMEOUT_S)
            host, port = self._config.host, self._config.web_port
            if getattr(failure, "errno", None) == errno.EADDRINUSE:
                raise PortInUse("web page", port, "web_port") from failure
            raise cannot_listen(host, port, "web_port", failure) from failure
        self._picture.start()

    def wait_until_alone(self, timeout_s: float, hurried: threading.Event | None = None) -> None:
        """Return when no page is connected, after `timeout_s`, or once `hurried` is set."""
        deadline = time.monotonic() + timeout_s
        while self._clients.count > 0 and time.monotonic() < deadline:
            if hurried is not None and hurried.is_set():
                return
            time.sleep(_LOOK_PERIOD_S)

    def stop(self) -> None:
        """Close every connection and join the threads; does nothing when not started."""
        if not self._thread.is_alive():
            return
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(timeout=_START_TIMEOUT_S)
        self._picture.stop()

    def pose(self, pose: Pose) -> None:
        """The newest camera pose; a tracked one also extends the path."""
        self._put("pose", pose.stamp_ns, pose_message(pose))
        self._world.add_pose(pose)

    def path_before(self, poses: StampedPoses) -> None:
        """The whole path: what lies before the first pose told here is shown too."""
        self._world.put_path_before(poses)

    def keyframe(self, keyframe: Keyframe) -> None:
        """A new keyframe: its frustum, and a sample of its points."""
        self._world.add_keyframe(keyframe)
        self._album.keyframe(keyframe)

    def moved(self, moved: MovedKeyframes) -> None:
        """Keyframes were corrected; what hangs on them follows."""
        self._world.move_keyframes(moved)

    def removed(self, removed: RemovedKeyframes) -> None:
        """Keyframes were withdrawn; their frusta and points go."""
        self._world.remove_keyframes(removed)

    def mesh(self, delta: MeshDelta) -> None:
        """What changed on the surface."""
        # the past first: a page that comes back from it is told there what is gone from the world
        if self._history is not None:
            self._history.surface(delta)
        self._world.apply(delta)

    def splats(self, delta: SplatDelta) -> None:
        """What changed in the world of splats."""
        self._splats.shelf.apply(delta)

    def take_lack_of_splats(self) -> bool:
        """Whether the world of splats has to be told again; said once."""
        return self._splats.shelf.take_lack()

    def image(
        self,
        rgb: UInt8[np.ndarray, "h w 3"],
        stamp_ns: int,
        labels: UInt16[np.ndarray, "h2 w2"] | None = None,
    ) -> None:
        """The newest picture, and the track ids in it; encoded later, when a page wants it."""
        self._film = rgb.shape[:2]
        self._album.picture(rgb, stamp_ns)
        self._picture.put(rgb, stamp_ns, labels)

    def tracks(self, frame: TrackFrame) -> None:
        """What is seen in the newest segmented frame."""
        shown = frame if self._film is None else whole_tracks(frame, self._film)
        self._put("tracks", frame.stamp_ns, tracks_message(shown))
        self._album.tracks(frame)

    def objects(self, objects: MapObjects) -> None:
        """The objects of the map, replacing those before."""
        self._put("objects", objects.stamp_ns, objects_message(objects))
        self._album.objects(objects)

    def status(self, values: dict[str, Any]) -> None:
        """Values for the status bar; `up` ([x, y, z] in the world) turns the view upright."""
        self._values = dict(values)
        self._put_status()

    def _put_status(self) -> None:
        own = {"viewers": self._clients.count, "viewer_dropped": self._clients.skipped}
        self._world.put("status", StatusUpdate(values={**own, **self._values}))

    def _put(self, name: str, stamp_ns: int, message: Message) -> None:
        self._world.put(name, message)
        if self._history is not None:
            self._history.state(name, stamp_ns, message)

    def _put_picture(self, update: ImageUpdate) -> None:
        self._put("image", update.stamp_ns, update)

    def _run(self) -> None:
        lower_thread_priority(_NICENESS)
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._serve())
        except (OSError, UnicodeError) as error:
            self._failure = error
        finally:
            self._ready.set()
            self._loop.close()

    def _application(self) -> web.Application:
        app = web.Application(middlewares=[self._gate.middleware])
        add_page(app)
        app.router.add_get("/ws", self._clients.connect)
        if self._config.website_mesh:
            app.router.add_get("/ws/mesh", self._clients.connect_website)
        app.router.add_get("/access", self._clients.access)
        app.router.add_get("/ws/splats", self._splats.connect)
        return app

    async def _serve(self) -> None:
        runner = web.AppRunner(
            self._application(), access_log=None, shutdown_timeout=1.0, logger=http_log(__name__)
        )
        await runner.setup()
        assert runner.server is not None
        self._gate.opens(runner.server)
        listener: asyncio.Server | None = None
        try:
            listener = await self._loop.create_server(
                self._gate,
                self._config.host,
                self._config.web_port,
                backlog=_BACKLOG,
                ssl=self._tls,
                ssl_handshake_timeout=_TLS_S if self._tls else None,
            )
            self.port = listener.sockets[0].getsockname()[1]
            scheme = "https" if self._tls else "http"
            log.info("web page on %s://%s:%d", scheme, self._config.host, self.port)
            self._ready.set()
            await self._report_until_stopped()
            await self._clients.close()
            await self._splats.close()
        finally:
            if listener is not None:
                listener.close()
            await runner.cleanup()

    async def _report_until_stopped(self) -> None:
        while not self._stop.is_set():
            due = time.monotonic() + _STATUS_PERIOD_S
            self._put_status()
            self._gate.thin_out()
            try:
                await asyncio.wait_for(self._stop.wait(), max(0.0, due - time.monotonic()))
            except TimeoutError:
                continue
