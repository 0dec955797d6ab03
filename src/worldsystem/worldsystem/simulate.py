# SPDX-License-Identifier: Apache-2.0
"""`worldsystem sim`: the drone simulator alone."""

from __future__ import annotations

import signal
import sys
import threading
import time

from worldsystem.settings_text import config_words
from worldsystem.status_line import say
from worldsystem_core.config import config_from, settings_of
from worldsystem_core.shown_url import without_secrets
from worldsystem_sim.config import SimConfig
from worldsystem_sim.simulator import SimStatus, Simulator


def simulate(words: list[str]) -> int:
    """Fly with the given settings until the flight ends or Ctrl-C; 0 when pictures reached the
    server, in whatever state, and 1, with the reason as the last line, when none did."""
    config = config_from(SimConfig, config_words(SimConfig, words))
    stop = threading.Event()
    signal.signal(signal.SIGINT, lambda *_: stop.set())
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    stats = Simulator(config).run(config.url, stop, _Printer())
    if stats.reached:
        return 0
    why = stats.link_error or "the flight ended before the first"
    server = without_secrets(config.url).partition("?")[0]  # a password may hold a ?, too
    say(f"no picture reached {server}: {why}; set simulator.url, or `worldsystem sim URL`")
    return 1


class _Printer:
    """Prints the simulator's state, at most once a second and at each change of phase."""

    def __init__(self) -> None:
        self._phase, self._printed_s = "", 0.0

    def __call__(self, status: SimStatus) -> None:
        now = time.monotonic()
        if status.phase == self._phase and now - self._printed_s < 1.0:
            return
        self._phase, self._printed_s = status.phase, now
        done = status.frames_rendered if status.phase == "preparing" else status.frames_sent
        say(f"simulator: {status.phase}, {done} of {status.frames_total} frames")


def list_settings() -> None:
    """Print every setting with its default, limits and meaning."""
    for setting in settings_of(SimConfig):
        limits = f"  [{setting.limits}]" if setting.limits else ""
        print(f"{setting.name}={setting.default}{limits}\n    {setting.help}", file=sys.stdout)
