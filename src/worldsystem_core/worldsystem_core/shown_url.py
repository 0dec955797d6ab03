# SPDX-License-Identifier: Apache-2.0
"""What people may see of a URL."""

from __future__ import annotations

import re

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*:)(/*)")
_HOST = re.compile(r"(\[[^]]*\]|[^:]*)(:\d*)?")
_WITHOUT_USERS = ("file:", "bag:", "camera:", "v4l2:", "sim:")
_SECRET = re.compile(
    r"([?&;#][^?&;#=]*(?:pass|pwd|pw|token|key|secret|auth|sig|streamid)[^?&;#=]*=)[^&]*",
    re.IGNORECASE,
)


def without_secrets(url: str) -> str:
    """`url`, also one that is none, as it may be logged and kept: passwords and tokens are stars.

    A password that holds `/`, `?` or `#` ends the address before its host does, so all that stands
    before the last `@` may be one. Rather too much is hidden than too little. Paths stay.
    """
    shown = _SECRET.sub(r"\1***", url)  # a secret of a query may hold an @, too
    swallowed = "@" in url and "@" not in shown
    return _unless_cut(shown) if swallowed else _without_password(shown)


def _unless_cut(shown: str) -> str:
    """Every @ stood in what looks like a secret: one within a password has no host before it."""
    scheme = _SCHEME.match(shown)
    if scheme is None or scheme[1].lower() in _WITHOUT_USERS:
        return shown
    place = re.split("[/?#&;]", shown[scheme.end() :], maxsplit=1)[0]
    return shown if _HOST.fullmatch(place) else f"{scheme[0]}***"


def _without_password(url: str) -> str:
    scheme = _SCHEME.match(url)
    if scheme is None or scheme[1].lower() in _WITHOUT_USERS:
        return url
    user, at, place = url[scheme.end() :].rpartition("@")
    well_formed = scheme[2] == "//"
    if not at or (well_formed and ":" not in user):
        return url
    name = user.partition(":")[0]
    shown = f"{name}:***" if well_formed and not re.search("[/?#]", user) else "***"
    return f"{scheme[0]}{shown}@{place}"
