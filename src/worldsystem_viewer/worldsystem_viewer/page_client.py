# SPDX-License-Identifier: Apache-2.0
"""The pages that are connected: how many may be, and who may not."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import dataclass, field

from aiohttp import WSCloseCode, web

from worldsystem_core.access import Access
from worldsystem_core.errors import MissingDependency
from worldsystem_core.web_socket import HEARTBEAT_S, accept
from worldsystem_viewer.album import Album
from worldsystem_viewer.config import ViewerConfig
from worldsystem_viewer.history import History
from worldsystem_viewer.page_files import same_origin
from worldsystem_viewer.page_mesh import SurfaceRounds
from worldsystem_viewer.page_steps import StateSteps
from worldsystem_viewer.page_talk import PageTalk
from worldsystem_viewer.website import WebsiteMesh
from worldsystem_viewer.world import Cursor, World

log = logging.getLogger(__name__)
_WRITE_BUFFER_BYTES = 256 * 1024
_MISLED = (
    "anybody could lead this name to this machine: open the page by the machine's address, or "
    "set viewer.token_file"
)
_NAME = "viewer"  # of the page in a file of tokens


@dataclass(frozen=True, eq=False)
class Shown:
    """What pages are shown: the world as it is, as it was, and what is known of its objects."""

    world: World
    history: History
    album: Album
    session: str
    rounds: SurfaceRounds
    steps: StateSteps
    pages: set[web.WebSocketResponse] = field(default_factory=set)


class PageClients:
    """Accepts pages up to `max_clients` and runs one sending task for each."""

    def __init__(self, config: ViewerConfig, shown: Shown) -> None:
        self._config = config
        self._shown = shown
        self._access = Access(config)
        self._sockets = shown.pages
        self._skipped_before = 0
        self._live: dict[int, Cursor] = {}
        self._talks: set[PageTalk] = set()

    @property
    def count(self) -> int:
        return len(self._sockets)

    @property
    def shows_pictures(self) -> bool:
        """Whether somebody looks at the live picture; from any thread."""
        return any(talk.shows_pictures for talk in list(self._talks))

    @property
    def skipped(self) -> int:
        """States that pages never saw because newer ones were there when they were ready."""
        return self._skipped_before + sum(cursor.skipped for cursor in list(self._live.values()))

    async def access(self, request: web.Request) -> web.StreamResponse:
        """Says whether a page would be let in: a browser hides why a WebSocket was refused."""
        if self._access.is_misled(request, by_page=True):
            raise web.HTTPForbidden(text=_MISLED)
        self.check(request)
        return web.Response(status=204)

    async def connect_website(self, request: web.Request) -> web.StreamResponse:
        """One client of the website of before, which gets the surface alone."""
        self.check(request, any_origin=True)
        socket = web.WebSocketResponse(
            compress=False,
            heartbeat=HEARTBEAT_S,
            writer_limit=_WRITE_BUFFER_BYTES,
            max_msg_size=4096,
        )
        await accept(socket, request)
        self._sockets.add(socket)
        mesh = WebsiteMesh(self._shown.world, self._config.mesh_mbps, request.query)
        sending = asyncio.create_task(_send_or_hang_up(mesh, socket, request))
        try:
            async for _ in socket:  # it has nothing to say
                continue
        finally:
            self._sockets.discard(socket)
            sending.cancel()
            with contextlib.suppress(asyncio.CancelledError, ConnectionError, TimeoutError):
                await sending
        return socket

    async def connect(self, request: web.Request) -> web.StreamResponse:
        """One page, from handshake to its end."""
        self.check(request)
        socket = web.WebSocketResponse(
            compress=False,
            heartbeat=HEARTBEAT_S,
            writer_limit=_WRITE_BUFFER_BYTES,
            max_msg_size=4096,
        )
        self._sockets.add(socket)
        cursor = Cursor()
        self._live[id(cursor)] = cursor
        try:
            await accept(socket, request)
            await self._talk(PageTalk(self._config, self._shown, socket, cursor, request))
        except (ConnectionError, TimeoutError) as error:
            log.info("a viewer went away: %s", error or type(error).__name__)
        finally:
            self._sockets.discard(socket)
            self._skipped_before += self._live.pop(id(cursor)).skipped
        return socket if socket.prepared else web.Response()

    async def _talk(self, talk: PageTalk) -> None:
        self._talks.add(talk)
        try:
            await talk.run()
        finally:
            self._talks.discard(talk)

    def check(self, request: web.Request, *, any_origin: bool = False) -> None:
        """Raise an HTTP error for whoever may not connect, and when there are too many."""
        self.admit(request, any_origin=any_origin)
        if len(self._sockets) >= self._config.max_clients:
            raise web.HTTPServiceUnavailable(
                text=f"{self._config.max_clients} viewers are connected, no more are served"
            )

    def admit(self, request: web.Request, *, any_origin: bool = False) -> None:
        """Raise an HTTP error for whoever may not connect, however many do."""
        if not any_origin and not same_origin(request):
            raise web.HTTPForbidden(text="another site's page may not connect")
        if not any_origin and self._access.is_misled(request):
            raise web.HTTPForbidden(text=_MISLED)
        if not self._access.allows(request, _NAME):
            raise web.HTTPUnauthorized(
                text="this page needs its token: open it with ?token=TOKEN",
                headers={"WWW-Authenticate": "Bearer"},
            )

    async def close(self) -> None:
        """Say goodbye to every page."""
        goodbyes = [
            socket.close(code=WSCloseCode.GOING_AWAY, message=b"server stops")
            for socket in list(self._sockets)
        ]
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.gather(*goodbyes, return_exceptions=True), 1.0)


async def _send_or_hang_up(
    mesh: WebsiteMesh, socket: web.WebSocketResponse, request: web.Request
) -> None:
    """A client that gets nothing any more must know: it would wait for ever, in another's place."""
    try:
        await mesh.run(socket)
    except (ConnectionError, TimeoutError):
        log.info("a client of the website of before takes no more data; it is disconnected")
    except MissingDependency as error:
        log.error("the website of before gets no surface: %s", error)
    if request.transport is not None:
        request.transport.abort()
