# SPDX-License-Identifier: Apache-2.0
"""The simulated drone: renders (or reads) a flight, sends it in real time, keeps the truth."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

from worldsystem_sim.cache import access_units
from worldsystem_sim.config import SimConfig
from worldsystem_sim.encode import AccessUnit
from worldsystem_sim.fates import UNSENT
from worldsystem_sim.flight import flight
from worldsystem_sim.link import Backoff
from worldsystem_sim.link_faults import LinkFaults
from worldsystem_sim.scene import build_scene
from worldsystem_sim.sender import Picture, Sender, SenderClock, SendStats, video_config
from worldsystem_sim.telemetry import telemetry
from worldsystem_sim.truth import FrameRecord, prepare_folder, write_truth

_log = logging.getLogger(__name__)
_LEAD_S = 0.5


@dataclass(frozen=True)
class SimStatus:
    """Where the simulator stands: `preparing` (rendering), `flying` or `landed`."""

    phase: str
    frames_rendered: int
    frames_sent: int
    frames_total: int
    connections: int = 0


class Simulator:
    """One simulated drone. `run` may be called once."""

    def __init__(self, config: SimConfig, backoff: Backoff | None = None) -> None:
        self.config = config
        self.faults = LinkFaults.from_config(config)
        self._hello = video_config(config.camera, config.fps)
        self._backoff = backoff
        self._stop = threading.Event()
        self._on_status: Callable[[SimStatus], None] = _ignore
        self._rendered = 0
        self._start_ns = 0
        self._due = 0

    def run(
        self,
        url: str | None = None,
        stop_event: threading.Event | None = None,
        on_status: Callable[[SimStatus], None] | None = None,
    ) -> SendStats:
        """Fly once (or until stopped, when looping); blocks, and returns what became of each frame.

        The whole flight is rendered first unless cached, so that it is sent at an even rate.
        Ground truth is written to `config.out`, also when stopped before the end; that it can be
        is looked at first (else `OSError`).
        """
        if self.config.out:
            prepare_folder(Path(self.config.out))
        self._stop = stop_event or self._stop
        self._on_status = on_status or _ignore
        units = self._prepare()
        clock = SenderClock(self.config.clock_offset_s, self.config.clock_drift_ppm)
        sender = Sender(url or self.config.url, self._hello, self.faults, self._backoff, clock)
        if units and not self._stop.is_set():
            asyncio.run(self._fly(units, sender))
        if self.config.out:
            self._write_truth(sender.stats)
        self._tell("landed", sender.stats)
        return sender.stats

    def _prepare(self) -> list[AccessUnit]:
        """Every encoded picture of the flight, rendered now unless cached."""
        units = []
        for unit in access_units(self.config, self._on_rendered):
            if self._stop.is_set():
                return []
            units.append(unit)
        return units

    def _on_rendered(self, done: int, total: int) -> None:
        self._rendered = done
        self._on_status(SimStatus("preparing", done, 0, total))

    async def _fly(self, units: list[AccessUnit], sender: Sender) -> None:
        """Send video and telemetry side by side; telemetry ends when the video does."""
        path = flight(
            self.config.flight,
            self.config.seed,
            self.config.duration_s,
            build_scene(self.config.seed),  # which takes a second or two when films are kept
        )
        self._start_ns = time.time_ns() + round(_LEAD_S * 1e9)
        messages = telemetry(self.config, path, self._start_ns)
        phone = asyncio.create_task(sender.send_telemetry(messages))
        try:
            await sender.send_pictures(self._pictures(units, sender.stats), self._stop)
            if not self._stop.is_set() and not self.config.loop:
                await asyncio.wait_for(phone, 5.0)
        except TimeoutError:
            _log.warning("telemetry was still waiting for its server when the flight ended")
        finally:
            phone.cancel()
            await asyncio.gather(phone, return_exceptions=True)
            await sender.close()

    async def _pictures(self, units: list[AccessUnit], stats: SendStats) -> AsyncIterator[Picture]:
        while not self._stop.is_set() and (self.config.loop or self._due < len(units)):
            number, self._due = self._due, self._due + 1
            yield Picture(number, self._stamp_ns(number), units[number % len(units)])
            if self._due % max(1, round(self.config.fps)) == 0:
                self._tell("flying", stats)

    def _stamp_ns(self, number: int) -> int:
        return self._start_ns + round(number * 1e9 / self.config.fps)

    def _tell(self, phase: str, stats: SendStats) -> None:
        total = self.config.frame_count
        self._on_status(
            SimStatus(phase, self._rendered, stats.count("sent"), total, stats.connections)
        )

    def _write_truth(self, stats: SendStats) -> None:
        records = [
            FrameRecord(number, self._stamp_ns(number), stats.fate.get(number, UNSENT))
            for number in range(self._due)
        ]
        write_truth(Path(self.config.out), self.config, records, self.faults.counts())


def _ignore(status: SimStatus) -> None:
    """Nobody listens."""
