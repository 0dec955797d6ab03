# SPDX-License-Identifier: Apache-2.0
"""The server as a source of video."""

from __future__ import annotations

import threading

from worldsystem_ingest.config import IngestConfig
from worldsystem_ingest.metrics import ServerStatus
from worldsystem_ingest.server.network import Network
from worldsystem_ingest.sink import Sink, Summary


class ServerSource:
    """Listens for senders; `run` owns the network thread and the decode thread of each stream."""

    live = True

    def __init__(self, config: IngestConfig) -> None:
        self._config = config
        self._network: Network | None = None
        self._listening = threading.Event()

    def wait_port(self, timeout_s: float) -> int:
        """The port once the server listens; raises `TimeoutError` when it does not by then."""
        if not self._listening.wait(timeout_s) or self._network is None:
            raise TimeoutError(f"the server does not listen after {timeout_s} s")
        return self._network.port

    def status(self) -> ServerStatus | None:
        """The account now; None before the server listens. Safe from any thread."""
        return self._network.status() if self._network else None

    def facts(self) -> dict[str, object]:
        """Nothing beside the ledger."""
        return {}

    def problem(self) -> str:
        """None that would not end the source."""
        return ""

    def run(self, sink: Sink, stop: threading.Event) -> Summary:
        """Serve until `stop`; raises `PortInUse`, or whatever the sink raised."""
        network = Network(self._config, sink, stop)
        network.start()
        self._network = network
        self._listening.set()
        try:
            stop.wait()
        finally:
            network.close()
        if network.failure:
            raise network.failure
        return Summary(frames=network.status().decoded_frames, broken=None)
