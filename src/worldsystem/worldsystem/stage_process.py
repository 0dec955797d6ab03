# SPDX-License-Identifier: Apache-2.0
"""One stage as a process of its own: started with its parameters, ended as Ctrl-C would."""

from __future__ import annotations

import logging
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import yaml

from worldsystem.graph import Parameters, Stage
from worldsystem.spare_process import SpareProcess
from worldsystem_core.child_process import end_with_parent

log = logging.getLogger(__name__)

WRONG_SETTINGS = 2
"""Exit code of a stage that a person must help: its settings or this machine do not suit it."""
_END_S = 45.0
_KILL_S = 5.0


class StageProcess:
    """Starts, ends and begins anew the `executable` of a stage; `folder` is for its settings.

    Where it does not exist, as in an installation by `pip`, `worldsystem node` takes its place.
    """

    def __init__(
        self, stage: Stage, executable: Path, parameters: Parameters, folder: Path
    ) -> None:
        self.stage = stage
        instead = [sys.executable, "-m", "worldsystem.cli", "node", stage.name]
        self._command = [str(executable)] if executable.is_file() else instead
        self._parameters = dict(parameters)
        self._file = folder / f"{stage.name}.yaml"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def exit_code(self) -> int | None:
        """None while it runs and before it ran."""
        return None if self._process is None else self._process.poll()

    @property
    def pid(self) -> int | None:
        """Of the process that was started last."""
        return None if self._process is None else self._process.pid

    def start(self, spare: SpareProcess | None = None, **further: object) -> None:
        """Start it, with `further` parameters beside its own; `spare`, if any, becomes it. Raises
        `OSError` where that cannot be, as without memory or disk."""
        given = {self.stage.name: {"ros__parameters": self._parameters | further}}
        self._file.parent.mkdir(mode=0o700, exist_ok=True)  # /tmp may have been cleaned
        self._file.write_text(yaml.safe_dump(given))
        node = ["--ros-args", "-r", f"__node:={self.stage.name}"]
        arguments = [*node, "--params-file", str(self._file)]
        if spare is not None:
            with suppress(OSError):  # it has just died
                self._process = spare.become(self.stage, arguments)
                return
        self._process = subprocess.Popen(
            [*self._command, *arguments],
            start_new_session=True,  # Ctrl-C is for the one who ends them in order
            preexec_fn=end_with_parent,
        )

    def kill(self) -> None:
        """End it at once; for one that does not answer. One that waits for a disk or a device ends
        only when that answers: it is left to itself after a while."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            try:
                self._process.wait(_KILL_S)
            except subprocess.TimeoutExpired:
                log.warning("%s was killed and has not ended yet", self.stage.name)

    def end(self) -> None:
        """Let it work off what it holds and end; kill it when that takes too long."""
        if self._process is None or self._process.poll() is not None:
            return
        self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            log.warning("%s did not end within %.0f s and was killed", self.stage.name, _END_S)
            self.kill()
