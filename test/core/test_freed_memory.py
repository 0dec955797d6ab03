# SPDX-License-Identifier: Apache-2.0
"""Holes that large buffers leave between small things that stay do not stay with the process."""

from __future__ import annotations

import ctypes
import subprocess
import sys
import textwrap

import pytest

HOLES = """
    import ctypes, time
    from worldsystem_core.freed_memory import hand_back_freed_memory

    def resident_mb():
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * 4096 / 1e6

    ctypes.CDLL(None).mallopt(-4, 0)  # no mmap for large buffers, as our processes have it
    ctypes.CDLL(None).mallopt(-1, 1 << 30)
    large, small = [], []
    for _ in range(1500):
        large.append(b"x" * 100_000)
        small.append(b"y" * 600)
    del large
    before_mb = resident_mb()
    hand_back_freed_memory(0.05)
    hand_back_freed_memory(0.05)
    deadline = time.monotonic() + 20.0
    while before_mb - resident_mb() < 100.0 and time.monotonic() < deadline:
        time.sleep(0.05)
    print(before_mb - resident_mb(), sum(map(len, small)))
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="needs glibc")
def test_holes_in_the_heap_are_handed_back_and_what_is_in_use_stays():
    code = textwrap.dedent(HOLES)
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert told.returncode == 0, told.stderr
    handed_back_mb, kept = told.stdout.split()
    assert float(handed_back_mb) > 100.0
    assert int(kept) == 1500 * 600
