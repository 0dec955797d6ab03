# SPDX-License-Identifier: Apache-2.0
"""What the URL of a live stream says: what FFmpeg opens, how, and what people may see of it."""

from __future__ import annotations

import errno
import re
from dataclasses import dataclass, field
from urllib.parse import SplitResult, parse_qsl, quote, urlencode, urlsplit, urlunsplit

import av

from worldsystem_core.errors import SourceError
from worldsystem_core.shown_url import without_secrets

PASSWORD_HINT = "write # / ? in a password as %23 %2F %3F"
TRANSPORTS = ("tcp", "udp", "http", "udp_multicast")
_RTSP = ("rtsp", "rtsps")
# Two seconds tell the codec of any stream; FFmpeg's own five, and its look at the frame rate, only
# make the first picture late. "nobuffer" would throw the first key frame away.
_PROBING = {"analyzeduration": "2000000", "fpsprobesize": "0"}
# Lets FFmpeg ask for the rest of a broken download. Only for what is known to be one: at the end of
# an endless stream it would report an error.
RESUMING = {"reconnect": "1", "reconnect_delay_max": "2"}
_DATAGRAMS = {"fifo_size": "65536", "overrun_nonfatal": "1"}


class LinkError(Exception):
    """A connection that could not be made, or broke; the message says why, without the URL.

    `refused`: the server is there and does not let us in, so that trying often does harm.
    """

    def __init__(self, reason: str, *, refused: bool = False) -> None:
        super().__init__(reason)
        self.refused = refused


@dataclass(frozen=True)
class Link:
    """One live stream's address. `shown` has no secrets; `listens`: the sender calls us."""

    url: str
    shown: str
    protocol: str
    listens: bool = False
    options: dict[str, str] = field(default_factory=dict)

    @property
    def place(self) -> str:
        """Host and port."""
        place = re.split("[/?#]", self.shown.partition("//")[2], maxsplit=1)[0]
        return place.rpartition("@")[2] or self.shown

    @property
    def is_playlist(self) -> bool:
        """Whether it is named like an HLS playlist; others are known once they are open."""
        return urlsplit(self.url).path.lower().endswith((".m3u8", ".m3u"))


def parse_link(url: str) -> Link:
    """Read `url`; our own parameters (`transport=`, `listen=1`) become options of FFmpeg.

    Raises `SourceError` for what is no URL, a parameter with a value that does not exist, or DASH.
    """
    parts, shown = address_parts(url, "rtsp://host:554/path"), without_secrets(url)
    if parts.path.lower().endswith(".mpd") and not _reads("dash"):
        raise SourceError(
            f"{shown}: the FFmpeg in use reads no DASH; ask the server for HLS (…/index.m3u8), "
            f"RTSP or SRT instead"
        )
    scheme = parts.scheme.lower()
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    options = dict(_PROBING)
    listens = scheme in ("udp", "rtp") or query.get("mode") == "listener"
    if scheme in _RTSP:
        options["rtsp_transport"] = _transport(query.pop("transport", "tcp"), url)
        options["allowed_media_types"] = "video"
        url = _with_query(url, query) if "transport=" in parts.query else url
    elif scheme.startswith("rtmp") and "listen" in query:
        listens = query.pop("listen") != "0"
        options["listen"] = "1" if listens else "0"
        url = _with_query(url, query)
    elif scheme == "tcp":
        listens = query.get("listen", "0") != "0"
    if scheme in ("udp", "rtp"):
        options |= _DATAGRAMS
    return Link(url=url, shown=shown, protocol=scheme, listens=listens, options=options)


def address_parts(url: str, example: str) -> SplitResult:
    """`url` in its parts, of which the port is a number.

    Raises `SourceError`, without a word of a password, for what is no URL, and when a `#` in the
    password ends it: `rtsp://pilot:12#34@cam` would be port 12 of the host "pilot".
    """
    why = PASSWORD_HINT
    try:
        parts = urlsplit(url)
        _ = parts.port
        if not (":" in parts.netloc and "@" in parts.fragment and "@" not in parts.netloc):
            return parts
    except ValueError as error:
        why = PASSWORD_HINT if "@" in url else str(error)  # it quotes what it takes for the port
    raise SourceError(f"{without_secrets(url)} is no address; write it like {example} ({why})")


def link_error(error: Exception, link: Link, waited_s: float) -> LinkError:
    """What went wrong, in words that tell a wrong password or path from a sender that is away."""
    place = link.place
    if isinstance(error, (av.HTTPUnauthorizedError, av.HTTPForbiddenError)):
        code = 401 if isinstance(error, av.HTTPUnauthorizedError) else 403
        return LinkError(
            f"{place} does not accept the user name and password, or asks for them ({code})",
            refused=True,
        )
    if isinstance(error, av.HTTPNotFoundError):
        return LinkError(f"{place} answers, but has no stream of this path now (404)")
    if isinstance(error, av.ConnectionRefusedError):
        return LinkError(f"nothing listens at {place} (connection refused)")
    if isinstance(error, (av.ExitError, TimeoutError)):  # av.TimeoutError is one, too
        what = "nobody sent to" if link.listens else "no data from"
        return LinkError(f"{what} {place} for {waited_s:.1f} s")
    if isinstance(error, av.InvalidDataError):
        return LinkError(f"what {place} sends is not video that FFmpeg can read")
    words = getattr(error, "strerror", None) or str(error)
    if getattr(error, "errno", None) == errno.EIO:
        words += "; broken connection, or a host name that does not exist"
    return LinkError(f"{place} cannot be read ({words})")


def _reads(form: str) -> bool:
    try:
        return bool(av.ContainerFormat(form, "r").is_input)
    except ValueError:
        return False


def _transport(name: str, url: str) -> str:
    if name not in TRANSPORTS:
        raise SourceError(
            f"{without_secrets(url)}: unknown transport '{name}'; known: {', '.join(TRANSPORTS)}"
        )
    return name


def _with_query(url: str, query: dict[str, str]) -> str:
    return urlunsplit(urlsplit(url)._replace(query=urlencode(query, quote_via=quote)))
