# SPDX-License-Identifier: Apache-2.0
"""Who may connect."""

from __future__ import annotations

from urllib.parse import urlsplit

from aiohttp import web


class Access:
    """Decides who may use a stream."""

    def allows(self, request: web.Request, stream: str) -> bool:
        """Whether whoever sent `request` may send to `stream` and take from it."""
        return True


def from_foreign_page(request: web.Request) -> bool:
    """Browsers let every page open sockets to this machine; only pages from here may."""
    origin = request.headers.get("Origin")
    return bool(origin) and urlsplit(origin).hostname != urlsplit(f"//{request.host}").hostname
