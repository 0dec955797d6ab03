# SPDX-License-Identifier: Apache-2.0
"""Which DDS domains of this machine have a system in them, so that a run can keep out of those.

A name of an abstract socket is of the machine (of the network namespace, as DDS is), not of one
user, and the kernel frees it when its process ends, however it ends.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path

from worldsystem_core.errors import ConfigError

VARIABLE = "ROS_DOMAIN_ID"
_NAMES = Path("/proc/net/unix")


def asked_domain() -> int | None:
    """The domain that a person has set; raises `ConfigError` where that is none."""
    asked = os.environ.get(VARIABLE, "")
    if not asked:
        return None
    if not (asked.isascii() and asked.isdigit()):
        raise ConfigError(f"{VARIABLE}={asked} is no DDS domain; set a number from 0 on, or none")
    return int(asked)


def claim(domain: int) -> socket.socket | None:
    """The one claim to `domain`, held as long as it is open; None where another has it."""
    return _bound(_name(domain))


def reserve(domain: int) -> socket.socket | None:
    """The one place in `domain` for a run that is to be started there, and claims it itself; held
    as long as it is open, None where another has it or a run or a source is in `domain`."""
    held = _bound(f"worldsystem-reserved-{domain}")
    if held is not None and _is_listed(f"{_name(domain)}\n", f"{_name(domain)}-"):
        held.close()
        return None
    return held


def mark(domain: int) -> socket.socket | None:
    """A mark, beside any others, that a source is in `domain`; held as long as it is open."""
    return _bound(f"{_name(domain)}-{os.getpid()}-{os.urandom(4).hex()}")


def is_marked(domain: int) -> bool:
    """Whether a source is in `domain`, whoever started it; False where that cannot be known."""
    return _is_listed(f"{_name(domain)}-")


def _is_listed(*beginnings: str) -> bool:
    try:
        names = _NAMES.read_text(errors="replace")
    except OSError:
        return False
    return any(f"@{beginning}" in names for beginning in beginnings)


def _name(domain: int) -> str:
    return f"worldsystem-domain-{domain}"


def _bound(name: str) -> socket.socket | None:
    holder = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        holder.bind(f"\0{name}")
    except OSError:
        holder.close()
        return None
    return holder
