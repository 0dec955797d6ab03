# SPDX-License-Identifier: Apache-2.0
"""Ingest: decoding against a bare PyAV loop, relay, faults on the link, clock, sensors.

Each part is a file of its own and says there what it measures and against what.
"""

from __future__ import annotations

import sys

import ingest_clock
import ingest_decode
import ingest_faults
import ingest_links
import ingest_relay
import ingest_sensors
from harness import Benchmark

PARTS = {
    "decode": ingest_decode,
    "relay": ingest_relay,
    "faults": ingest_faults,
    "clock": ingest_clock,
    "sensors": ingest_sensors,
    "links": ingest_links,
}


def main() -> None:
    """Measure all parts, or those named, and write `results/ingest.json`."""
    bench = Benchmark("ingest")
    parts = sys.argv[1:] or list(PARTS)
    for part in parts:
        PARTS[part].measure(bench)
    if set(parts) != set(PARTS):
        bench.keep_others()
    print(bench.write())


if __name__ == "__main__":
    main()
