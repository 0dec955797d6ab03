# SPDX-License-Identifier: Apache-2.0
"""Where a server listens: what its `host` stands for, and where it is reached."""

from __future__ import annotations

import ipaddress
import socket

from worldsystem_core.errors import ConfigError


def ip_of(host: str) -> str:
    """The address that `host` stands for, IPv4 where it has one.

    Raises `OSError` or `UnicodeError` where it has none.
    """
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    address = min(found, key=lambda each: each[0] != socket.AF_INET)[4][0]
    return str(address)


def reached_at(host: str) -> str:
    """Where programs of this machine reach a server that listens at `host`, as a URL has it:
    loopback for one that listens on every network."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if address.is_unspecified:
        return "127.0.0.1" if address.version == 4 else "[::1]"
    return host if address.version == 4 else f"[{host}]"


def cannot_listen(
    host: str, port: int, option: str, error: Exception, *, stage: str = "viewer"
) -> ConfigError:
    """What to raise when a server of `stage` cannot listen at `host` for another reason than that
    somebody has the port, which is the setting `option`."""
    reason = getattr(error, "strerror", None) or error
    return ConfigError(
        f"cannot listen on {host}:{port}: {reason}; `{stage}.host` must be an address of this "
        f"machine (127.0.0.1, or 0.0.0.0 for every network) and `{stage}.{option}` a port that "
        f"may be taken"
    )
