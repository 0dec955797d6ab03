# SPDX-License-Identifier: Apache-2.0
"""Which DDS domain a run takes, so that two runs on one machine do not hear each other.

Both would publish `worldsystem/ledger` and `/diagnostics`, and each count the other's stages as its
own; stages in processes of their own would take the pictures of both.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from worldsystem_core.dds_domain import VARIABLE, asked_domain, claim, is_marked

log = logging.getLogger(__name__)

_DOMAINS = range(101)
"""`reprocess` takes them from the other end; above 101 there may be no ports for them."""


@contextmanager
def own_domain() -> Iterator[int]:
    """The domain of this process and of those that it starts meanwhile: the first that no other
    system has, from 0 on. One that the user has set is taken as it is, with a warning if one is in
    it."""
    asked = asked_domain()
    if asked is not None:
        yield from _asked_for(asked)
        return
    for domain in _DOMAINS:
        held = _claimed(domain)
        if held is None:
            continue
        os.environ[VARIABLE] = str(domain)
        try:
            yield domain
        finally:
            os.environ.pop(VARIABLE, None)
            held.close()
        return
    log.warning("all %d DDS domains have a run: this one will hear another's", len(_DOMAINS))
    yield 0


def _asked_for(domain: int) -> Iterator[int]:
    held = _claimed(domain)
    if held is None:
        log.warning(
            "another run on this machine has DDS domain %s, too: each will count the other's "
            "stages as its own; set another %s, or none",
            domain,
            VARIABLE,
        )
    try:
        yield domain
    finally:
        if held is not None:
            held.close()


def _claimed(domain: int) -> socket.socket | None:
    """Held as long as it is open and its process lives; None where another run, or a source that
    something else started, as `ros2 launch`, is in `domain`."""
    held = claim(domain)
    if held is not None and is_marked(domain):
        held.close()
        return None
    return held
