# SPDX-License-Identifier: Apache-2.0
"""`worldsystem sim`: the drone simulator alone."""

from __future__ import annotations

import signal
import sys
import threading

from worldsystem.settings_text import config_words
from worldsystem_core.config import config_from, settings_of
from worldsystem_sim.config import SimConfig
from worldsystem_sim.simulator import Simulator


def simulate(words: list[str]) -> int:
    """Fly with the given settings until the flight ends or Ctrl-C; 0 when frames were sent."""
    config = config_from(SimConfig, config_words(SimConfig, words))
    stop = threading.Event()
    signal.signal(signal.SIGINT, lambda *_: stop.set())
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    Simulator(config).run(config.url, stop, lambda text: print(text, flush=True))
    return 0


def list_settings() -> None:
    """Print every setting with its default, limits and meaning."""
    for setting in settings_of(SimConfig):
        limits = f"  [{setting.limits}]" if setting.limits else ""
        print(f"{setting.name}={setting.default}{limits}\n    {setting.help}", file=sys.stdout)
