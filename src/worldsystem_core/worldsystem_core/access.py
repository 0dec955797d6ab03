# SPDX-License-Identifier: Apache-2.0
"""Who may connect: bearer tokens by stream, TLS, and which web pages may open sockets here."""

from __future__ import annotations

import hmac
import ipaddress
import json
import logging
import socket
import ssl
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from aiohttp import web

from worldsystem_core.errors import ConfigError

_log = logging.getLogger(__name__)
_ALL_OTHERS = "*"
_OF_PROXIES = ("Forwarded", "X-Forwarded-For")
_WITHIN = (".local", ".localhost", ".lan", ".internal", ".home.arpa")
"""Ends of names that nobody outside this network can have."""


class ServerSettings(Protocol):
    """The settings of a server that says who may connect: where it listens, tokens, TLS."""

    @property
    def host(self) -> str: ...
    @property
    def token_file(self) -> str: ...
    @property
    def tls_certificate(self) -> str: ...
    @property
    def tls_key(self) -> str: ...


class Access:
    """Decides by bearer token who may use a stream; without a token file everybody may.

    A token comes as `Authorization: Bearer TOKEN`, or as `?token=TOKEN` from those who cannot set
    headers. Raises `ConfigError` when `token_file` cannot be used. Tokens are never logged.
    """

    def __init__(self, config: ServerSettings) -> None:
        self._host = config.host
        self._tokens = _read_tokens(config.token_file)
        if not self._tokens and not only_this_machine(config.host):
            _log.warning(
                "everybody who reaches %s may connect; `token_file` sets tokens", config.host
            )

    @property
    def restricted(self) -> bool:
        """Whether a token is needed."""
        return bool(self._tokens)

    def allows(self, request: web.Request, stream: str) -> bool:
        """Whether whoever sent `request` may send to `stream` and take from it."""
        if not self._tokens:
            return True
        expected = self._tokens.get(stream, self._tokens.get(_ALL_OTHERS))
        return expected is not None and _same(_given(request), expected)

    def allows_any(self, request: web.Request) -> bool:
        """Whether whoever sent `request` may use any stream, and so may see how the server is."""
        return not self._tokens or self.knows(_given(request))

    def is_misled(self, request: web.Request, *, by_page: bool = False) -> bool:
        """Whether a page may come from anywhere, though it is of no other site by its origin: it
        asks by a name that anybody may lead here. `by_page`: it is a page that asks, for sure.

        Nobody else has a token or the certificate; no page can open a WebSocket in the name of
        somebody, as proxies do, and none of https may ask a port without TLS.
        """
        headers = request.headers
        if self._tokens or request.secure or not (by_page or "Origin" in headers):
            return False
        by_tls = headers.get("Origin", "").startswith("https:")  # and this port has none
        if (request.method == "GET" or by_tls) and is_passed_on(request):
            return False
        return can_be_led_here(request.host, self._host)

    def knows(self, given: str) -> bool:
        """Whether `given` is the token of any stream."""
        return any(_same(given, token) for token in self._tokens.values())


def tls_context(config: ServerSettings) -> ssl.SSLContext | None:
    """What wss and https need, or None without TLS; raises `ConfigError` naming the parameter."""
    certificate, key = config.tls_certificate, config.tls_key
    if not certificate and not key:
        return None
    if not certificate or not key:
        given, missing = (
            ("tls_certificate", "tls_key") if certificate else ("tls_key", "tls_certificate")
        )
        raise ConfigError(f"`{given}` is set and `{missing}` is not; TLS needs both")
    _read("tls_certificate", certificate)
    if "ENCRYPTED" in _read("tls_key", key):
        raise ConfigError(f"`tls_key` {key} has a password; the server needs it without one")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(Path(certificate).expanduser(), Path(key).expanduser())
    except ssl.SSLError as error:
        raise ConfigError(
            f"`tls_certificate` {certificate} and `tls_key` {key} cannot be used: "
            f"{_tls_fault(error)}"
        ) from error
    return context


def from_foreign_page(request: web.Request) -> bool:
    """Browsers let every page open sockets to this machine; only pages from here may.

    An origin, or a host, that is no address is foreign, too.
    """
    return is_foreign(request.headers.get("Origin", ""), request.host)


def is_foreign(origin: str, host: str) -> bool:
    """The same of the two headers; without an origin it is no page. All names of the machine on
    which the browser runs are one."""
    if not origin:
        return False
    try:
        page, here = urlsplit(origin).hostname or "", urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return True
    return page != here and not (only_this_machine(page) and only_this_machine(here))


def is_passed_on(request: web.Request) -> bool:
    """Whether a proxy says that it asks for somebody."""
    return any(name in request.headers for name in _OF_PROXIES)


def can_be_led_here(host: str, own: str) -> bool:
    """Whether a `Host` is a name that anybody may lead to this machine (DNS rebinding): no address,
    not this machine's, not `own`, and none that means something within this network alone."""
    try:
        name = (urlsplit(f"//{host}").hostname or "").rstrip(".")
    except ValueError:
        return True
    if name in (own.lower(), socket.gethostname().lower()) or name.endswith(_WITHIN):
        return False
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return "." in name
    return False


def _tls_fault(error: ssl.SSLError) -> str:
    if error.reason == "KEY_VALUES_MISMATCH":
        return "the key does not belong to the certificate"
    return f"they must be PEM files ({error.reason or error})"


def _read_tokens(path: str) -> dict[str, str]:
    if not path:
        return {}
    try:
        tokens = json.loads(_read("token_file", path))
    except ValueError as error:
        raise ConfigError(f"`token_file` {path} is not JSON: {error}") from None
    if not isinstance(tokens, dict) or not tokens:
        raise ConfigError(f'`token_file` {path} must hold {{"STREAM": "TOKEN", ...}}')
    return {stream: _checked(token, stream, path) for stream, token in tokens.items()}


def _checked(token: object, stream: str, path: str) -> str:
    """Without blanks around it: a header cannot tell of them."""
    try:
        if isinstance(token, str) and token.strip().encode():
            return token.strip()
    except UnicodeEncodeError:
        pass
    raise ConfigError(f"`token_file` {path}: the token of {stream!r} must be a text")


def _read(parameter: str, path: str) -> str:
    try:
        return Path(path).expanduser().read_text()
    except (OSError, UnicodeDecodeError, RuntimeError) as error:  # the last of a ~ without a home
        raise ConfigError(f"`{parameter}` {path} cannot be read: {error}") from error


def given_token(authorization: str, asked: str) -> str:
    """The token of an `Authorization` header, else the one of the address."""
    kind, _, token = authorization.partition(" ")
    return token.strip() if kind.lower() == "bearer" else asked


def _given(request: web.Request) -> str:
    return given_token(request.headers.get("Authorization", ""), request.query.get("token", ""))


def _same(given: str, expected: str) -> bool:
    """In a time that does not tell how much of it was right."""
    return hmac.compare_digest(given.encode(errors="replace"), expected.encode())


def only_this_machine(host: str) -> bool:
    """Whether an address or a name in an address is this machine's own, whatever its network."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
