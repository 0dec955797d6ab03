# SPDX-License-Identifier: Apache-2.0
"""A page that stays open for long: what its heap, its process and the server's process hold."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import viewer_in_browser

_PERIOD_S = 3.0
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Held:
    """Samples: when [min], and how much [MB] of what."""

    at_min: np.ndarray
    mb: dict[str, np.ndarray]

    def slope(self, name: str) -> float:
        """Of a line through all samples [MB/min]."""
        return float(np.polyfit(self.at_min, self.mb[name], 1)[0])


def watch(port: int, settle_s: float, minutes: float) -> Held:
    """Open the page, wait until it has everything, then sample for so long."""
    at_min: list[float] = []
    samples: list[dict[str, float]] = []
    with viewer_in_browser.opened(port) as page:
        page.wait_for_timeout(1e3 * (settle_s + 10.0))
        begun = time.monotonic()
        while not at_min or at_min[-1] < minutes:
            at_min.append((time.monotonic() - begun) / 60)
            samples.append(_sample(page))
            page.wait_for_timeout(1e3 * _PERIOD_S)
    return Held(
        np.array(at_min), {name: np.array([s[name] for s in samples]) for name in samples[0]}
    )


def _sample(page: Any) -> dict[str, float]:
    return {
        "heap": viewer_in_browser.heap_mb(page),
        "page": max(map(_resident_mb, _renderers()), default=0.0),
        "server": _resident_mb(os.getpid()),
    }


def _renderers() -> list[int]:
    """Chromium's processes that run pages, of those that this process began."""
    parents = {pid: _parent(pid) for pid in map(int, filter(str.isdigit, os.listdir("/proc")))}
    return [pid for pid in parents if _is_ours(pid, parents) and b"--type=renderer" in _line(pid)]


def _is_ours(pid: int, parents: dict[int, int]) -> bool:
    while pid in parents:
        if pid == os.getpid():
            return True
        pid = parents[pid]
    return False


def _parent(pid: int) -> int:
    fields = _read(pid, "stat").rpartition(b")")[2].split()
    return int(fields[1]) if fields else 0


def _line(pid: int) -> bytes:
    return _read(pid, "cmdline")


def _resident_mb(pid: int) -> float:
    fields = _read(pid, "statm").split()
    return int(fields[1]) * _PAGE_BYTES / 1e6 if fields else 0.0


def _read(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:  # it has ended
        return b""
