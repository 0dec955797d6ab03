# SPDX-License-Identifier: Apache-2.0
"""Live video from a URL through FFmpeg, opened again whenever it ends or stalls."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from worldsystem_core.errors import SourceError
from worldsystem_ingest.config import IngestConfig
from worldsystem_ingest.files.delivery import Delivery, camera_with_focal
from worldsystem_ingest.sink import Sink, Summary
from worldsystem_ingest.url.backoff import Backoff, SparseWarnings
from worldsystem_ingest.url.connection import Connection, Download
from worldsystem_ingest.url.link import LinkError, parse_link

_log = logging.getLogger(__name__)
_REFUSED_WAIT_S = 10.0  # cameras lock an account after a few wrong passwords


@dataclass(frozen=True)
class LinkState:
    """How a link is at the moment; `attempts` counts those in vain since the last success."""

    state: str = "connecting"
    since: str = ""
    protocol: str = ""
    codec: str = ""
    connections: int = 0
    attempts: int = 0
    last_error: str = ""


class LiveUrl:
    """One live stream over any number of connections; ids go on, stamps are host times.

    Something whose length is known (a recording behind HTTP) plays at its own pace and ends the
    source, once all of it was there; a broken download goes on where it broke. Any other end, an
    error or `stall_s` without video leads to the next connection.
    """

    live = True

    def __init__(self, url: str, config: IngestConfig) -> None:
        self._link = parse_link(url)
        self._config = config
        self._connection: Connection | None = None
        self._warnings = SparseWarnings(_log)
        self._state = LinkState(protocol=self._link.protocol, since=_now())

    @property
    def state(self) -> LinkState:
        """How the link is now; safe from any thread."""
        return self._state

    def facts(self) -> dict[str, object]:
        """The link's state, as `/diagnostics` shows it."""
        state = self._state
        return {
            "url": self._link.shown,
            "link": state.state,
            "link since": state.since,
            "protocol": state.protocol,
            "codec": state.codec,
            "stamps from": self._connection.stamps_from if self._connection else "",
            "connections": state.connections,
            "attempts in vain": state.attempts,
            "last error": state.last_error,
        }

    def problem(self) -> str:
        """Why nothing comes now; empty while connected and before the first failure."""
        state = self._state
        if state.state == "connected" or not state.last_error:
            return ""
        return f"{self._link.shown}: {state.last_error}"

    def run(self, sink: Sink, stop: threading.Event) -> Summary:
        """Deliver until `stop`; raises `SourceError` after `connect_attempts` vain attempts."""
        config = self._config
        camera = camera_with_focal(config.focal_px)
        delivery = Delivery(sink, config.stream, camera)
        download = Download()
        try:
            self._keep_open(delivery, download, stop)
        finally:
            download.settle()
            self._enter("ended")
        return Summary(frames=delivery.frames)

    def _keep_open(self, delivery: Delivery, download: Download, stop: threading.Event) -> None:
        config = self._config
        backoff = Backoff(config.backoff_first_s, config.backoff_max_s)
        while not stop.is_set():
            before = delivery.frames
            self._enter("listening" if self._link.listens else "connecting")
            try:
                self._connection = Connection(self._link, config, delivery, stop)
                if self._connection.play(self._connected, download):
                    return
            except LinkError as error:
                if stop.is_set():
                    return
                if delivery.frames > before:
                    backoff.succeeded()
                stop.wait(self._wait_s(error, backoff))

    def _wait_s(self, error: LinkError, backoff: Backoff) -> float:
        """How long to wait after `error`; a listener must not miss its sender's next attempt."""
        config, shown = self._config, self._link.shown
        wait_s = backoff.next_s()
        if self._link.listens:
            wait_s = min(wait_s, config.backoff_first_s)
        elif error.refused:
            wait_s = max(wait_s, _REFUSED_WAIT_S)
        self._enter("waiting", attempts=backoff.failures, last_error=str(error))
        if config.connect_attempts and backoff.failures >= config.connect_attempts:
            raise SourceError(
                f"{shown}: {error}; given up after {backoff.failures} attempts. Is the "
                f"sender running, and the address right?"
            ) from error
        self._warnings.warn(f"{shown}: {error}", wait_s)
        return wait_s

    def _connected(self, codec: str) -> None:
        connections = self._state.connections + 1
        self._enter("connected", codec=codec, connections=connections, attempts=0)
        self._warnings.over(f"{self._link.shown}: connected")

    def _enter(self, state: str, **changes: object) -> None:
        self._state = replace(self._state, state=state, since=_now(), **changes)  # type: ignore[arg-type]


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
