# SPDX-License-Identifier: Apache-2.0
"""The server as a source of video."""

from __future__ import annotations

import threading

from worldsystem_ingest.config import IngestConfig
from worldsystem_ingest.server.network import Network
from worldsystem_ingest.server.pages import PushStatusOf
from worldsystem_ingest.sink import Sink, Summary
from worldsystem_ingest.stream.status import ServerStatus


class Listening:
    """What sources with a server have in common: its network once it listens, and the push.

    `push_status` may be set to what tells how the push to an RTSP server is.
    """

    def __init__(self, config: IngestConfig) -> None:
        self._config = config
        self._network: Network | None = None
        self._listening = threading.Event()
        self.push_status: PushStatusOf = no_push

    def wait_port(self, timeout_s: float) -> int:
        """The port once the server listens; raises `TimeoutError` when it does not by then."""
        if not self._listening.wait(timeout_s) or self._network is None:
            raise TimeoutError(f"the server does not listen after {timeout_s} s")
        return self._network.port

    def status(self) -> ServerStatus | None:
        """The account now; None before the server listens. Safe from any thread."""
        return self._network.status() if self._network else None

    def _listen(self, network: Network) -> None:
        network.start()
        self._network = network
        self._listening.set()


class ServerSource(Listening):
    """Listens for senders; `run` owns the network thread and the decode thread of each stream."""

    live = True

    def facts(self) -> dict[str, object]:
        """Who is connected, and how the link of each stream is; safe from any thread."""
        status = self.status()
        return facts_of(status) if status else {}

    def problem(self) -> str:
        """That nobody sends, or sends too little, in words; safe from any thread."""
        status = self.status()
        if status and not status.senders:
            return f"nobody sends video to port {self._network.port if self._network else 0}"
        return low_bandwidth_of(status) if status else ""

    def run(self, sink: Sink, stop: threading.Event) -> Summary:
        """Serve until `stop`; raises `PortInUse`, or whatever the sink raised."""
        network = Network(self._config, sink, stop, push=lambda: self.push_status())
        self._listen(network)
        try:
            stop.wait()
        finally:
            network.close()
        if network.failure:
            raise network.failure
        return Summary(frames=network.status().decoded_frames, broken=None)


def facts_of(status: ServerStatus) -> dict[str, object]:
    """What `/diagnostics` shows of a server."""
    facts: dict[str, object] = {
        "senders": status.senders,
        "phones": status.phones,
        "consumers": len(status.consumer_queues),
        "bad_messages": status.bad_messages,
    }
    for name, stream in status.streams.items():
        link = stream.link
        facts[f"{name}.bandwidth_mbps"] = round(link.bandwidth_mbps, 2)
        facts[f"{name}.loss"] = round(link.loss, 4)
        if stream.packets_lost or stream.packets_late:
            facts[f"{name}.packets_lost"] = stream.packets_lost
            facts[f"{name}.packets_late"] = stream.packets_late
        if link.jitter_ms is not None:
            facts[f"{name}.jitter_ms"] = round(link.jitter_ms, 2)
        if link.clock.error_bound_ns is not None:
            facts[f"{name}.clock_error_bound_ms"] = round(link.clock.error_bound_ns * 1e-6, 2)
    return facts


def low_bandwidth_of(status: ServerStatus) -> str:
    """Which streams carry too little for good pictures, in words; empty when none."""
    return "; ".join(
        f"{name}: only {stream.bandwidth_average_mbps or 0.0:.1f} Mbit/s arrive on average"
        for name, stream in status.streams.items()
        if stream.low_bandwidth
    )


def no_push() -> None:
    """Nothing is pushed."""
