# SPDX-License-Identifier: Apache-2.0
"""What a person sees in the terminal while the system runs."""

from __future__ import annotations

import math
import os
import shutil
import sys
import time
from contextlib import suppress
from urllib.parse import quote

from worldsystem.graph import Choice, stages
from worldsystem.observer import Live
from worldsystem.simulator_process import SimulatorProcess
from worldsystem_core.config import config_from, own_settings
from worldsystem_core.shown_url import without_secrets
from worldsystem_ingest.config import IngestConfig
from worldsystem_viewer.addresses import reached_at
from worldsystem_viewer.config import ViewerConfig

_PLAIN_PERIOD_S = 5.0


class StatusLine:
    """One line that is rewritten on a terminal, and a line every five seconds elsewhere."""

    def __init__(self, *, enabled: bool = True) -> None:
        self._enabled = enabled
        self._terminal = sys.stdout.isatty()
        self._printed_s = -math.inf

    def heading(self, choice: Choice, domain: int = 0) -> None:
        """Say what runs, where it can be seen and will be found, and in which DDS domain, if that
        is not the usual one."""
        if not self._enabled:
            return
        given = {stage.name: parameters for stage, parameters in stages(choice)}
        lines = [f"WorldSystem: {without_secrets(choice.source)} → {choice.backend}"]
        if choice.viewer:
            viewer = config_from(ViewerConfig, own_settings(given["viewer"]))
            host, s = reached_at(viewer.host), "s" if viewer.tls_certificate else ""
            if viewer.web:
                lines.append(f"  web page   http{s}://{host}:{viewer.web_port}")
            if viewer.foxglove:
                lines.append(f"  Foxglove   ws{s}://{host}:{viewer.foxglove_port}")
            if viewer.rerun and viewer.rerun_serve:
                proxy = quote(f"rerun+http://{host}:{viewer.rerun_port}/proxy", safe="")
                lines.append(f"  Rerun      http://{host}:{viewer.rerun_web_port}/?url={proxy}")
        if choice.simulated:
            ingest = config_from(IngestConfig, own_settings(given["ingest"]))
            s = "s" if ingest.tls_certificate else ""
            lines.append(f"  video      ws{s}://{reached_at(ingest.host)}:{ingest.port}/ws/video")
        if domain:
            lines.append(f"  DDS domain {domain}: put ROS_DOMAIN_ID={domain} before other commands")
        lines.append(f"  run        {choice.out}    (Ctrl-C ends it in order)")
        say("\n".join(lines))

    def show(self, live: Live, simulator: SimulatorProcess | None) -> None:
        """Show the state, at a pace that suits the output."""
        now = time.monotonic()
        pace_s = 0.5 if self._terminal else _PLAIN_PERIOD_S
        if not self._enabled or now - self._printed_s < pace_s:
            return
        self._printed_s = now
        waiting = simulator is not None and not live.frames
        self._print(simulator.message if waiting and simulator else described(live))

    def end(self) -> None:
        """Leave the line for good and say that the end has begun."""
        if self._enabled:
            say("\nfinishing: working off what is queued, then the report")

    def note(self, text: str) -> None:
        """Say something that stays."""
        if self._enabled:
            say(f"note: {text}")

    def _print(self, text: str) -> None:
        if not self._terminal:
            say(text)
            return
        width = shutil.get_terminal_size().columns - 1
        say(f"\r{text[:width]:{width}s}", end="")


def say(text: str, *, end: str = "\n") -> None:
    """Print `text`. Whoever reads may go away before the run ends: then nobody is told any more."""
    try:
        try:
            print(text, end=end, flush=True)
        except UnicodeEncodeError as error:  # a terminal without all of our letters
            known = text.encode(error.encoding, "replace").decode(error.encoding)
            print(known, end=end, flush=True)
    except (OSError, ValueError):
        _print_nowhere()


def _print_nowhere() -> None:
    with suppress(OSError, ValueError), open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), sys.stdout.fileno())


def described(live: Live) -> str:
    """`live` in one line."""
    drops = ", ".join(f"{reason} {count}" for reason, count in live.dropped.items()) or "none"
    return (
        f"{live.t_s:5.0f} s  {live.fps:5.1f} fps  {live.frames} frames  "
        f"{live.keyframes} keyframes  {live.triangles} triangles  "
        f"glass-to-map {_milliseconds(live.glass_to_map_p50_ms)} "
        f"(p95 {_milliseconds(live.glass_to_map_p95_ms)})  drops: {drops}"
    )


def _milliseconds(value: float) -> str:
    return f"{value:.0f} ms" if math.isfinite(value) else "–"
