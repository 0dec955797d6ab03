# SPDX-License-Identifier: Apache-2.0
"""The drone simulator as a process of its own, as a real drone would be outside ours."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading

from worldsystem.graph import Choice, simulator_parameters
from worldsystem.settings_text import word_of
from worldsystem_core.child_process import end_with_parent
from worldsystem_core.errors import WorldSystemError

_STOP_S = 10.0


class SimulatorProcess:
    """`worldsystem sim` in the background; its newest line of output is `message`."""

    def __init__(self, choice: Choice) -> None:
        words = [word_of(name, value) for name, value in simulator_parameters(choice).items()]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "worldsystem.cli", "sim", "--set", *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,  # Ctrl-C is for the run, which ends it in order
            preexec_fn=end_with_parent,
        )
        self.message = "simulator is starting"
        self._stopped = False
        self._reader = threading.Thread(target=self._read, name="simulator-output", daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.message = line.strip() or self.message

    @property
    def ended(self) -> bool:
        return self._process.poll() is not None

    def stop(self) -> None:
        """End it as Ctrl-C would, so that it writes its ground truth."""
        self._stopped = not self.ended
        if self._stopped:
            self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(_STOP_S)
        self._reader.join(_STOP_S)

    def raise_failure(self) -> None:
        """Raise when the simulator ended by itself with an error."""
        if self._process.returncode and not self._stopped:
            raise WorldSystemError(f"the simulator failed: {self.message}")
