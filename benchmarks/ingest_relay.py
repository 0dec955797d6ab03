# SPDX-License-Identifier: Apache-2.0
"""The relay with 50 consumers of which 5 never read, against two plain servers; added latency.

Server, sender and consumers are processes of their own. A consumer's latency runs from just before
the sender hands a picture to its socket until the consumer has all of it, the consumers' own
reading included. The plain servers decode nothing; ours decodes every picture beside the relay.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import ingest_latency
import ingest_naive
import ingest_traffic
import numpy as np
from harness import QUICK, Benchmark
from ingest_sinks import Nowhere
from ingest_traffic import Received

from worldsystem_ingest.config import IngestConfig
from worldsystem_ingest.server import ServerSource

CONSUMERS, STALLED, RELAY_MBPS = 50, 5, 10.0
RELAY_S = 8.0 if QUICK else 60.0
PEER_S = 5.0 if QUICK else 15.0
LATENCY_MBPS, LATENCY_S = 8.0, 8.0 if QUICK else 30.0
WARM_S = 3.0 if QUICK else 10.0

_spawn = multiprocessing.get_context("spawn")


@dataclass(frozen=True)
class RelayRun:
    """What the healthy consumers of one server saw, and what the server took."""

    loss: float
    late_ms: np.ndarray
    growth_mb: float


def measure(bench: Benchmark) -> None:
    """The relay, the plain servers in the same run, and what the server adds before the sink."""
    ours = relay_run("ours", RELAY_S)
    note = f"{CONSUMERS} consumers, {STALLED} stalled, {RELAY_MBPS:g} Mbit/s, {RELAY_S:g} s"
    bench.add("relay_healthy_loss", ours.loss, "share", note=note)
    bench.add("relay_p50_ms", float(np.percentile(ours.late_ms, 50)), "ms", note=note)
    bench.add("relay_p99_ms", float(np.percentile(ours.late_ms, 99)), "ms", note=note)
    bench.add("relay_memory_growth_mb", ours.growth_mb, "MB", note=f"from second {WARM_S:g} on")
    for peer in ("broadcast", "queues"):
        run = relay_run(peer, PEER_S)
        note = f"plain aiohttp, {peer}, {PEER_S:g} s"
        bench.add(f"relay_{peer}_loss", run.loss, "share", note=note)
        late_ms = float(np.percentile(run.late_ms, 99)) if len(run.late_ms) else float("inf")
        bench.add(f"relay_{peer}_p99_ms", late_ms, "ms", note=note)
    added_latency(bench)


def added_latency(bench: Benchmark) -> None:
    """What the server adds to each picture before the sink has it."""
    with _running(ingest_latency.serve) as serving:
        with _running(_send, serving.recv(), LATENCY_MBPS, LATENCY_S) as sending:
            sending.send("go")
            sending.recv()
        serving.send("end")
        added_ms, decode_ms = serving.recv()
    note = f"1080p30 {LATENCY_MBPS:g} Mbit/s, {len(added_ms)} pictures, decoding {decode_ms:.1f} ms"
    bench.add("added_latency_p50_ms", float(np.percentile(added_ms, 50)), "ms", note=note)
    bench.add("added_latency_p99_ms", float(np.percentile(added_ms, 99)), "ms", note=note)


def relay_run(server: str, seconds: float) -> RelayRun:
    """Send through `server` and see what the healthy consumers get."""
    with _running(_serve, server) as serving:
        port = serving.recv()
        with (
            _running(_consume, port) as consuming,
            _running(_send, port, RELAY_MBPS, seconds) as sending,
        ):
            consuming.recv()
            sending.send("go")
            time.sleep(min(WARM_S, seconds / 2))
            serving.send("mark")
            sent = sending.recv()
            serving.send("mark")
            consuming.send("stop")
            received: list[Received] = consuming.recv()
            rss_begin_mb, rss_end_mb = serving.recv(), serving.recv()
    late_ms = np.concatenate([r.late_ms for r in received])
    lost = sum(sent - len(set(r.numbers)) for r in received)
    return RelayRun(
        loss=lost / (sent * len(received)),
        late_ms=late_ms,
        growth_mb=rss_end_mb - rss_begin_mb,
    )


@contextmanager
def _running(target: Callable[..., None], *args: object) -> Iterator[Connection]:
    ours, theirs = _spawn.Pipe()
    process = _spawn.Process(target=target, args=(theirs, *args), daemon=True)
    process.start()
    theirs.close()  # so that a process that ends is noticed
    try:
        yield ours
    finally:
        process.terminate()
        process.join(10.0)


def _consume(parent: Connection, port: int) -> None:
    healthy = CONSUMERS - STALLED
    consumers = ingest_traffic.connect(port, healthy, STALLED)
    parent.send("connected")
    parent.send(ingest_traffic.read_until(consumers[:healthy], parent.poll))


def _send(parent: Connection, port: int, mbps: float, seconds: float) -> None:
    pictures = ingest_traffic.video(mbps)
    parent.recv()
    parent.send(asyncio.run(ingest_traffic.send(port, pictures, seconds)))


def _serve(parent: Connection, server: str) -> None:
    if server == "ours":
        config = IngestConfig(port=0, send_timeout_s=3600.0)
        source, stop = ServerSource(config), threading.Event()
        threading.Thread(target=source.run, args=(Nowhere(), stop), daemon=True).start()
        parent.send(source.wait_port(10.0))
    else:
        relay = {"broadcast": ingest_naive.Broadcast, "queues": ingest_naive.Queues}[server]()
        threading.Thread(target=ingest_naive.serve, args=(relay, parent.send), daemon=True).start()
    while True:
        parent.recv()
        parent.send(_rss_mb())


def _rss_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


if __name__ == "__main__":
    measure(Benchmark("ingest"))
