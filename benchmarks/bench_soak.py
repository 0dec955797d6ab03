# SPDX-License-Identifier: Apache-2.0
"""The whole system for hours, watched from outside: does it grow, does it slow down?

`make soak HOURS=2` flies the simulator's 60 s flight again and again, at its own pace and with
everything on, in one process as `worldsystem demo` runs it. Ctrl-C writes what there is.
What fills memory up to a limit (docs/parameters.md) has so low a limit that it is full before the
warm-up ends: what grows after that has none.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from harness import QUICK, Benchmark
from soak_figures import add_figures, series
from soak_samples import Account, Sample, account_of, processes_of, unexplained_frames

LAP_S = 60.0
PERIOD_S = 5.0
START_S, END_S = 600.0, 900.0
"""How long the flight may take to be rendered and begin, and the run to write its report."""
_PORTS = {
    "ingest": ("port",),
    "viewer": ("web_port", "foxglove_port", "rerun_port", "rerun_web_port"),
    "mesher": ("metrics_port",),
    "monitor": ("port",),
}
_LIMITS = (
    "mesher.store_mb=64",
    "segmenter.crops_mb=10",
    "slam3r.map_mb=32",
    "slam3r.path_poses=5000",
    "viewer.album_mb=4",
    "viewer.history_mb=16",
    "viewer.cloud_points=500000",
    "viewer.rerun_mb=64",
)


class Soak:
    """One run and the samples of it; `stop` ends it in order, from any thread or signal."""

    def __init__(self, folder: Path, *, lap_s: float = LAP_S, period_s: float = PERIOD_S) -> None:
        self.samples: list[Sample] = []
        self._out = folder / "run"
        self._log = folder / "run.log"
        self._period_s = period_s
        self._ports = free_ports()
        self._command = command(self._out, lap_s, self._ports)
        self._stop = threading.Event()

    def stop(self) -> None:
        """Take no further sample, and end the run as Ctrl-C would."""
        self._stop.set()

    def fly(self, length_s: float) -> float:
        """Watch the run for `length_s` from its first tracked frame; its unexplained frames.

        A run that ends by itself raises `RuntimeError` with the end of what it printed, after its
        samples were taken; `samples` keeps them.
        """
        domain = {"ROS_DOMAIN_ID": os.environ.get("ROS_DOMAIN_ID", str(30 + os.getpid() % 40))}
        with self._log.open("w") as log:
            process = subprocess.Popen(
                self._command,
                env=os.environ | domain,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for us, who hand it on
            )
            try:
                self._watch(process, length_s)
                self._end(process)
            finally:
                process.kill()
                process.wait(10.0)
        return unexplained_frames(self._out)

    def _watch(self, process: subprocess.Popen[bytes], length_s: float) -> None:
        first = self._wait_for(process, lambda account: account.tracked > 0)
        start_s = time.monotonic()
        account = first
        if account is not None:
            print(f"tracking; for {length_s / 3600:g} h, Ctrl-C writes what there is", flush=True)
        while account is not None:
            t_s = time.monotonic() - start_s
            self.samples.append(Sample(t_s, processes_of(process.pid), account))
            left_s = length_s - t_s
            if left_s <= 0 or self._stop.wait(min(self._period_s, left_s)):
                return
            account = self._wait_for(process, lambda account: True)

    def _wait_for(
        self, process: subprocess.Popen[bytes], ready: Callable[[Account], bool]
    ) -> Account | None:
        """The next account that is `ready`; None when stopped."""
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            if process.poll() is not None:
                raise RuntimeError(f"the run ended by itself; its last words:\n{self._words()}")
            account = account_of(self._ports["monitor.port"], self._ports["mesher.metrics_port"])
            if account is not None and ready(account):
                return account
            if self._stop.wait(0.5):
                return None
        raise RuntimeError(f"no account for {START_S:.0f} s; the run's words:\n{self._words()}")

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        process.send_signal(signal.SIGINT)
        try:
            code = process.wait(END_S)
        except subprocess.TimeoutExpired:
            raise RuntimeError(f"the run did not end within {END_S:.0f} s") from None
        if code:
            raise RuntimeError(f"the run ended with code {code}:\n{self._words()}")

    def _words(self) -> str:
        return self._log.read_text(errors="replace")[-2000:]


def command(out: Path, lap_s: float, ports: dict[str, int]) -> list[str]:
    """The demo as a user runs it, whose flight begins anew when it ends; its ports are free."""
    settings = [f"{name}={port}" for name, port in ports.items()]
    settings += [*_LIMITS, "simulator.loop=true", f"simulator.duration_s={lap_s:g}"]
    run = [sys.executable, "-m", "worldsystem.cli", "demo", "--duration", "1e7", "--out", str(out)]
    return [*run, "--set", *settings]


def free_ports() -> dict[str, int]:
    """A free port for each that the run opens, so that it can run beside another."""
    names = [f"{node}.{name}" for node, settings in _PORTS.items() for name in settings]
    sockets = [socket.socket() for _ in names]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return {n: int(s.getsockname()[1]) for n, s in zip(names, sockets, strict=True)}
    finally:
        for each in sockets:
            each.close()


def soaked(length_s: float, *, lap_s: float = LAP_S, period_s: float = PERIOD_S) -> int:
    """Fly, and write what was seen in any case; 1 when the run did not end well."""
    bench = Benchmark("soak")
    unexplained, problem = float("nan"), ""
    with tempfile.TemporaryDirectory() as folder:
        soak = Soak(Path(folder), lap_s=lap_s, period_s=period_s)
        signal.signal(signal.SIGINT, lambda *_: soak.stop())
        signal.signal(signal.SIGTERM, lambda *_: soak.stop())
        try:
            unexplained = soak.fly(length_s)
        except RuntimeError as error:
            problem = str(error)
    add_figures(bench, soak.samples, unexplained)
    if bench.figures:
        path = bench.write()
        table = path.with_name(f"{path.stem}_series.csv")
        table.write_text("".join(",".join(row) + "\n" for row in series(soak.samples)))
        print(path, table)
    else:
        problem = problem or "stopped before the first frame was tracked: nothing was written"
    if problem:
        print(problem, file=sys.stderr)
    return 1 if problem else 0


def hours(text: str) -> float:
    """A length of time above zero; `argparse` tells what is wrong with another."""
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not 0.0 < value <= 1000.0:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number of hours above 0, as in 0.1")
    return value


def main(given: list[str] | None = None) -> int:
    """Fly for so many hours."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hours", type=hours, default=0.05 if QUICK else 2.0)
    parser.add_argument("--lap", type=float, default=LAP_S, help="length of the flight [s]")
    options = parser.parse_args(given)
    os.environ.setdefault("BENCH_COMMAND", f"make soak HOURS={options.hours:g}")
    return soaked(3600.0 * options.hours, lap_s=options.lap)


if __name__ == "__main__":
    sys.exit(main())
