# SPDX-License-Identifier: Apache-2.0
"""What ends a run in order: Ctrl-C, a service's SIGTERM, and a terminal that goes away."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def end_at_signals(end: Callable[[], None]) -> dict[signal.Signals, Any]:
    """Call `end` at each of these signals from now on, again and again; `nohup` keeps its meaning.

    Returns what was done at them before. Outside the main thread, which alone hears signals,
    nothing is changed.
    """
    before: dict[signal.Signals, Any] = {}
    with suppress(ValueError):
        for number in _ENDING:
            if number is not signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, lambda *_: end())
    return before


@contextmanager
def ended_by_signals(end: Callable[[], None]) -> Iterator[None]:
    """`end_at_signals` as long as this lasts."""
    before = end_at_signals(end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
