# SPDX-License-Identifier: Apache-2.0
"""The server's health and metrics over HTTP."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict

from aiohttp import web

from worldsystem_ingest.metrics import ServerStatus, exposition


class Pages:
    """Answers who asks how the server is."""

    def __init__(self, status: Callable[[], ServerStatus]) -> None:
        self._status = status

    async def on_health(self, request: web.Request) -> web.Response:
        """`/health`: the whole account."""
        status = self._status()
        return web.json_response({"status": "ok", "receiving": status.receiving, **asdict(status)})

    async def on_rtsp(self, request: web.Request) -> web.Response:
        """`/health/rtsp` and `/rtsp/status`: what the deployed clients ask for."""
        status = self._status()
        return web.json_response(
            {
                "status": "healthy" if status.receiving else "no_video",
                "rtsp_push": False,
                "receiving": status.receiving,
                "bandwidth_mbps": status.bandwidth_mbps,
                "bandwidth_average_mbps": status.bandwidth_average_mbps,
                "low_bandwidth": status.low_bandwidth,
                "frames": status.encoded_frames,
                "consumers": len(status.consumer_queues),
            }
        )

    async def on_metrics(self, request: web.Request) -> web.Response:
        """`/metrics`: for Prometheus."""
        return web.Response(
            body=exposition(self._status()), content_type="text/plain", charset="utf-8"
        )
