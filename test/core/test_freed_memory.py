# SPDX-License-Identifier: Apache-2.0
"""Holes that large buffers leave between small things that stay do not stay with the process."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import textwrap

import pytest

HOLES = """
    import time
    from worldsystem_core.freed_memory import hand_back_freed_memory, keep_freed_memory

    def resident_mb():
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * 4096 / 1e6

    keep_freed_memory()
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


HEAPS = """
    import ctypes, sys, threading
    from worldsystem_core.freed_memory import hand_back_freed_memory

    if sys.argv[1] == "ours":
        hand_back_freed_memory()
    together = threading.Barrier(64)

    def allocate():
        together.wait(20.0)
        kept = bytearray(100_000)
        together.wait(20.0)

    threads = [threading.Thread(target=allocate) for _ in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    libc = ctypes.CDLL(None)
    libc.fopen.restype = ctypes.c_void_p
    file = ctypes.c_void_p(libc.fopen(sys.argv[2].encode(), b"w"))
    libc.malloc_info(0, file)
    libc.fclose(file)
    print(open(sys.argv[2]).read().count("<heap nr="))
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_info"), reason="needs glibc")
def test_many_threads_share_few_heaps(tmp_path):
    heaps = {}
    for whose in ("ours", "any"):
        command = [sys.executable, "-c", textwrap.dedent(HEAPS), whose, str(tmp_path / whose)]
        told = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert told.returncode == 0, told.stderr
        heaps[whose] = int(told.stdout)
    assert heaps["ours"] <= max(1, (os.cpu_count() or 1) // 4)
    assert heaps["any"] > heaps["ours"]


HUGE_PAGES = """
    import re, sys
    import numpy as np
    from worldsystem_core.freed_memory import hand_back_freed_memory

    if sys.argv[1] == "ours":
        hand_back_freed_memory()
    kept = np.ones(64 << 20, np.uint8)
    with open("/proc/self/smaps_rollup") as file:
        print(re.search(r"AnonHugePages: *([0-9]+)", file.read())[1])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads what Linux tells of its pages")
def test_the_kernel_does_not_fill_holes_by_making_huge_pages():
    told_kb = {}
    for whose in ("ours", "any"):
        command = [sys.executable, "-c", textwrap.dedent(HUGE_PAGES), whose]
        told = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert told.returncode == 0, told.stderr
        told_kb[whose] = int(told.stdout)
    assert told_kb["ours"] == 0
    if not told_kb["any"]:
        pytest.skip("this kernel makes no huge pages for anybody")
