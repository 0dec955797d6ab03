# SPDX-License-Identifier: Apache-2.0
"""The server's health and metrics over HTTP."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict

from aiohttp import web

from worldsystem_core.access import Access
from worldsystem_ingest.rtsp_push.push import PushStatus
from worldsystem_ingest.server.metrics import exposition
from worldsystem_ingest.server.sockets import refusal
from worldsystem_ingest.stream.status import ServerStatus

PushStatusOf = Callable[[], PushStatus | None]


class Pages:
    """Answers who asks how the server is; where tokens are set, only `/health` without one.

    `push` tells how the push to an RTSP server is, None where there is none.
    """

    def __init__(
        self, status: Callable[[], ServerStatus], access: Access, push: PushStatusOf
    ) -> None:
        self._status = status
        self._access = access
        self._push = push

    def routes(self) -> list[web.RouteDef]:
        """What the server's application must route here."""
        return [
            web.get("/health", self._on_health),
            web.get("/health/rtsp", self._on_rtsp),
            web.get("/rtsp/status", self._on_rtsp),
            web.get("/metrics", self._on_metrics),
        ]

    async def _on_health(self, request: web.Request) -> web.Response:
        """Whether the server runs, and the whole account for those who may see it."""
        status = self._status()
        health: dict[str, object] = {"status": "ok", "receiving": status.receiving}
        if self._access.allows_any(request):
            health |= asdict(status) | {"push": self._push_status()}
            del health["link"]  # each stream has its own
        return web.json_response(health)

    async def _on_rtsp(self, request: web.Request) -> web.Response:
        """What the deployed clients ask for."""
        self._refuse_strangers(request)
        status, push = self._status(), self._push_status()
        return web.json_response(
            {
                "status": "healthy" if status.receiving else "no_video",
                "rtsp_push": push is not None,
                "push": push,
                "receiving": status.receiving,
                "bandwidth_mbps": status.bandwidth_mbps,
                "bandwidth_average_mbps": status.bandwidth_average_mbps,
                "low_bandwidth": status.low_bandwidth,
                "frames": status.encoded_frames,
                "consumers": len(status.consumer_queues),
            }
        )

    async def _on_metrics(self, request: web.Request) -> web.Response:
        """For Prometheus."""
        self._refuse_strangers(request)
        body = exposition(self._status())
        return web.Response(body=body, content_type="text/plain", charset="utf-8")

    def _refuse_strangers(self, request: web.Request) -> None:
        if not self._access.allows_any(request):
            raise refusal(web.HTTPUnauthorized, "the token of any stream is needed")

    def _push_status(self) -> dict[str, object] | None:
        push = self._push()
        return asdict(push) if push else None
