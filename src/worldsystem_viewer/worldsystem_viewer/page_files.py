# SPDX-License-Identifier: Apache-2.0
"""The page's files over HTTP, with the headers that keep other sites out."""

from __future__ import annotations

from pathlib import Path

from aiohttp import web

from worldsystem_core.access import is_passed_on

WEB = Path(__file__).parent / "web"
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
        "worker-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


def add_page(app: web.Application) -> None:
    """Serve `web/` at the root of `app`."""
    app.on_response_prepare.append(_set_headers)
    app.router.add_get("/", _index)
    app.router.add_static("/web", WEB)


async def _index(_: web.Request) -> web.FileResponse:
    return web.FileResponse(WEB / "index.html")


async def _set_headers(_: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(_HEADERS)


def same_origin(request: web.Request) -> bool:
    """Whether a WebSocket request comes from our own page, or from no page at all.

    A browser lets any site open a WebSocket to this machine; only `Origin` tells them apart.
    """
    origin = request.headers.get("Origin")
    return origin is None or origin.split("://", 1)[-1] == request.host


def asked_from(request: web.Request) -> str | None:
    """The address of who asks; None where a proxy says that it asks for somebody: its own address,
    often one of this machine, tells nothing of the line to the page."""
    return None if is_passed_on(request) else request.remote
