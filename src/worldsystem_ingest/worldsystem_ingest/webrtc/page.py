# SPDX-License-Identifier: Apache-2.0
"""The page that makes a phone the camera: its files, and the headers that keep other sites out."""

from __future__ import annotations

from pathlib import Path

from aiohttp import web

WEB = Path(__file__).parent / "web"
FILES = ("camera.css", "camera.js", "link.js", "sensors.js", "icon.svg")
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "media-src 'self' blob: mediastream:; connect-src 'self'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'"
    ),
    "Permissions-Policy": (
        "camera=(self), geolocation=(self), gyroscope=(self), accelerometer=(self), "
        "magnetometer=(self), screen-wake-lock=(self)"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


async def _page(_: web.Request) -> web.FileResponse:
    return web.FileResponse(WEB / "camera.html", headers=_HEADERS)


async def _file(request: web.Request) -> web.FileResponse:
    return web.FileResponse(WEB / request.path.rsplit("/", 1)[-1], headers=_HEADERS)


PAGE_ROUTES = [("/camera", _page), *((f"/camera/{name}", _file) for name in FILES)]


def unavailable_page(reason: str) -> web.Response:
    """What `/camera` shows where WebRTC cannot work."""
    text = f"This server cannot take video from browsers: {reason}\n"
    return web.Response(status=503, text=text, headers=_HEADERS)
