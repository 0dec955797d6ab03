# SPDX-License-Identifier: Apache-2.0
"""A source whose first stream is pushed to an RTSP server while it runs."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from worldsystem_ingest.config import IngestConfig
from worldsystem_ingest.rtsp_push.push import PushingSink, PushStatus, RtspPush, check_push_url
from worldsystem_ingest.server import ServerSource, ServingSource
from worldsystem_ingest.sink import Sink, Summary

if TYPE_CHECKING:  # which needs this module
    from worldsystem_ingest.source import Source

_PATIENT_ATTEMPTS = 3


class PushedSource:
    """Runs another source as it is; `config.push_url` gets the encoded video of its first stream.

    A server among the sources tells how the push is, too. Raises `SourceError` for a bad URL.
    """

    def __init__(self, source: Source, config: IngestConfig) -> None:
        check_push_url(config.push_url)
        self.source = source
        self.live = source.live
        self._config = config
        self._push: RtspPush | None = None
        if isinstance(source, (ServerSource, ServingSource)):
            source.push_status = self.push_status

    def push_status(self) -> PushStatus | None:
        """How the push is; None before the source runs. Safe from any thread."""
        return self._push.status() if self._push else None

    def run(self, sink: Sink, stop: threading.Event) -> Summary:
        """As the source's `run`; what could not be pushed by its end is lost to the push alone."""
        self._push = RtspPush(self._config.push_url, self._config)
        try:
            return self.source.run(PushingSink(sink, self._push), stop)
        finally:
            self._push.close()

    def facts(self) -> dict[str, object]:
        """Those of the source, and where the push stands."""
        status = self.push_status()
        if status is None:
            return self.source.facts()
        pushed = {f"push.lost.{reason}": count for reason, count in status.lost.items()}
        return {
            **self.source.facts(),
            "push": f"{status.state} {status.url}",
            "push.frames": status.frames,
            **pushed,
        }

    def problem(self) -> str:
        """That of the source, else that the RTSP server cannot be reached."""
        status = self.push_status()
        if status and status.attempts >= _PATIENT_ATTEMPTS:
            return self.source.problem() or f"push to {status.url}: {status.last_error}"
        return self.source.problem()
