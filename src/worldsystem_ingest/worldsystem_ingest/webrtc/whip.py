# SPDX-License-Identifier: Apache-2.0
"""The WHIP endpoint (RFC 9725): browsers and encoders offer their video over HTTP."""

from __future__ import annotations

import asyncio
import importlib
import ipaddress
import logging
import socket
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from aiohttp import web

from worldsystem_core.access import Access, from_foreign_page
from worldsystem_core.errors import BackendError
from worldsystem_ingest.config import IngestConfig
from worldsystem_ingest.stream.registry import (
    BadStreamName,
    Failed,
    StreamRegistry,
    TooManyStreams,
    VideoStream,
)
from worldsystem_ingest.webrtc.offer import MAX_SDP_BYTES, BadOffer
from worldsystem_ingest.webrtc.page import PAGE_ROUTES, unavailable_page
from worldsystem_ingest.webrtc.sessions import TooManySessions, WhipSession, WhipSessions

if TYPE_CHECKING:  # imported when the first browser comes
    from worldsystem_ingest.webrtc.receiver import ReceiverSettings

_log = logging.getLogger(__name__)
_RECEIVER = "worldsystem_ingest.webrtc.receiver"
_SDP = "application/sdp"
_MIB = 2**20
_BODY_TIMEOUT_S = 10.0
_ANSWER_TIMEOUT_S = 15.0
_SILENCE_S = 10.0
_CONNECTING = 4  # browsers that may be connecting beside one for each stream
_INSTALL = "`pip install aiortc`, or `make setup`, installs it"

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class WhipEndpoint:
    """Takes browsers' video into the server's streams; everything is for the network thread.

    aiortc is imported when the first browser comes: it takes a third of a second, and a server
    whose aiortc is missing serves everything else. `failed` gets what the sink raised.
    """

    def __init__(
        self, streams: StreamRegistry, access: Access, config: IngestConfig, failed: Failed
    ) -> None:
        self._streams = streams
        self._access = access
        self._config = config
        self._sessions = WhipSessions(config.max_streams + _CONNECTING, failed)
        self._missing: str | None = None
        self._settings: ReceiverSettings | None = None

    def routes(self) -> list[web.RouteDef]:
        """What the server's application must route here."""
        return [
            web.post("/whip", self._on_offer),
            web.post("/whip/{stream}", self._on_offer),
            web.delete("/whip/session/{id}", self._on_delete),
            web.patch("/whip/session/{id}", self._on_patch),
            web.route("OPTIONS", "/whip", self._on_options),
            web.route("OPTIONS", "/whip/{stream}", self._on_options),
            web.route("OPTIONS", "/whip/session/{id}", self._on_options),
            web.get("/camera/session/{id}", self._on_state),
            *(web.get(path, self._if_available(page)) for path, page in PAGE_ROUTES),
        ]

    async def close(self) -> None:
        """End every session; the browsers are told."""
        await self._sessions.close()

    async def _on_offer(self, request: web.Request) -> web.Response:
        name = request.match_info.get("stream", self._config.stream)
        self._stream(request, name)
        offer = await _body(request)
        settings = await self._ready()
        if settings is None:
            raise _refused(web.HTTPServiceUnavailable, f"{self._missing}; {_INSTALL}")
        settings = replace(settings, addresses=await self._addresses())
        stream = self._stream(request, name)  # it may have made room for another since
        try:
            async with asyncio.timeout(_ANSWER_TIMEOUT_S):  # opens at once, as `wait_for` need not
                session, answer = await self._sessions.open(stream, offer, settings)
        except BadOffer as error:
            raise _refused(web.HTTPBadRequest, str(error)) from error
        except (TooManySessions, BackendError, TimeoutError) as error:
            raise _refused(web.HTTPServiceUnavailable, str(error) or "no answer in time") from error
        headers = {"Location": f"/whip/session/{session.id}"}
        return web.Response(status=201, text=answer, content_type=_SDP, headers=headers)

    async def _on_delete(self, request: web.Request) -> web.Response:
        session = self._session(request)
        self._sessions.end(session, "the sender ended it")
        return web.Response(text="ended")

    async def _on_patch(self, request: web.Request) -> web.Response:
        """Refused, as RFC 9725 (4.3.2) has it where neither trickle ICE nor restarts are known.

        Nothing is lost: the answer holds all our addresses, and the browser's are learnt from its
        checks.
        """
        self._session(request)
        raise web.HTTPMethodNotAllowed(
            "PATCH", ["DELETE", "OPTIONS"], text="trickle ICE is not needed; send a whole offer"
        )

    async def _on_options(self, request: web.Request) -> web.Response:
        return web.Response(status=204, headers={"Accept-Post": _SDP, "Allow": "OPTIONS, POST"})

    async def _on_state(self, request: web.Request) -> web.Response:
        return web.json_response(self._session(request).state())

    def _stream(self, request: web.Request, name: str) -> VideoStream:
        self._admit(request, name)
        try:
            return self._streams.stream(name)
        except BadStreamName as error:
            raise _refused(web.HTTPBadRequest, str(error)) from error
        except TooManyStreams as error:
            raise _refused(web.HTTPServiceUnavailable, str(error)) from error

    def _session(self, request: web.Request) -> WhipSession:
        session = self._sessions.find(request.match_info["id"])
        if session is None:
            raise _refused(web.HTTPNotFound, "there is no such session; it may have ended")
        self._admit(request, session.stream.name)
        return session

    def _admit(self, request: web.Request, name: str) -> None:
        if from_foreign_page(request) or self._access.is_misled(request):
            raise _refused(web.HTTPForbidden, "pages of other sites may not send video here")
        if not self._access.allows(request, name):
            error = _refused(web.HTTPUnauthorized, f"stream {name!r:.50} needs a valid token")
            error.headers["WWW-Authenticate"] = "Bearer"
            raise error

    def _if_available(self, page: Handler) -> Handler:
        async def answer(request: web.Request) -> web.StreamResponse:
            if await self._ready() is None:
                return unavailable_page(f"{self._missing}; {_INSTALL}")
            return await page(request)

        return answer

    async def _addresses(self) -> list[str]:
        """Those of now, since networks change; in another thread, as a host may be a name."""
        loop, host = asyncio.get_running_loop(), self._config.host
        try:
            return await loop.run_in_executor(None, addresses_of, host)
        except OSError as error:
            what = f"'{host}' has no address now ({error.strerror})"
            raise _refused(web.HTTPServiceUnavailable, what) from error

    async def _ready(self) -> ReceiverSettings | None:
        """The settings for receivers; None when aiortc cannot be imported, for which see the log.

        Imported in another thread, because the network has to go on.
        """
        if self._settings or self._missing:
            return self._settings
        loop = asyncio.get_running_loop()
        try:
            receiver = await loop.run_in_executor(None, importlib.import_module, _RECEIVER)
        except ImportError as error:
            self._missing = f"WebRTC needs aiortc, which cannot be imported ({error})"
            _log.error("%s; %s", self._missing, _INSTALL)
            return None
        config = self._config
        self._settings = receiver.ReceiverSettings(
            addresses=[],  # each offer gets those of its time
            stun_servers=[url.strip() for url in config.stun_servers.split(",") if url.strip()],
            wait_s=config.webrtc_wait_s,
            silence_s=_SILENCE_S,
            max_picture_bytes=int(config.max_message_mb * _MIB),
        )
        return self._settings


async def _body(request: web.Request) -> str:
    """The offer's text; raises the HTTP error that tells what is wrong with it."""
    if request.content_type != _SDP:
        raise _refused(web.HTTPUnsupportedMediaType, f"an offer is {_SDP}")
    if (request.content_length or 0) > MAX_SDP_BYTES:
        raise web.HTTPRequestEntityTooLarge(MAX_SDP_BYTES, request.content_length or 0)
    try:
        body = await asyncio.wait_for(request.read(), _BODY_TIMEOUT_S)
        if len(body) > MAX_SDP_BYTES:
            raise web.HTTPRequestEntityTooLarge(MAX_SDP_BYTES, len(body))
        return body.decode()
    except TimeoutError as error:
        raise _refused(web.HTTPRequestTimeout, "the offer did not come whole") from error
    except UnicodeDecodeError as error:
        raise _refused(web.HTTPBadRequest, "an offer is text in UTF-8") from error


def addresses_of(host: str) -> list[str]:
    """Where browsers may send to, when the server listens on `host`.

    On every network: each address of this machine, the loopback for browsers on it.
    """
    infos = socket.getaddrinfo(host, None, type=socket.SOCK_DGRAM)
    addresses = sorted({str(info[4][0]) for info in infos})
    if all(not ipaddress.ip_address(address).is_unspecified for address in addresses):
        return addresses
    from aioice.ice import get_host_addresses

    found: list[str] = get_host_addresses(use_ipv4=True, use_ipv6=":" in addresses[0])
    return ["127.0.0.1", *found]


def _refused(kind: type[web.HTTPError], message: str) -> web.HTTPError:
    return kind(text=f"{message}\n")
