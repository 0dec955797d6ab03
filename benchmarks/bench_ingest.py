# SPDX-License-Identifier: Apache-2.0
"""Ingest: decoding against a bare PyAV loop, relay, faults on the link, clock, sensors.

Each part is a file of its own and says there what it measures and against what.
"""

from __future__ import annotations

import ingest_clock
import ingest_decode
import ingest_faults
import ingest_links
import ingest_relay
import ingest_sensors
from harness import Benchmark

PARTS = (
    ingest_decode,
    ingest_relay,
    ingest_faults,
    ingest_clock,
    ingest_sensors,
    ingest_links,
)


def main() -> None:
    """Measure and write `results/ingest.json`."""
    bench = Benchmark("ingest")
    for part in PARTS:
        part.measure(bench)
    print(bench.write())


if __name__ == "__main__":
    main()
