# SPDX-License-Identifier: Apache-2.0
"""SRT through the program `srt-live-transmit`, because PyAV's wheels carry FFmpeg without SRT."""

from __future__ import annotations

import os
import select
import shutil
import subprocess
import threading
import time
from types import TracebackType

import av

from worldsystem_core.child_process import end_with_parent
from worldsystem_core.errors import MissingDependency
from worldsystem_ingest.config import IngestConfig
from worldsystem_ingest.url.link import Link, LinkError

PROGRAM = "srt-live-transmit"
_POLL_S = 0.1
_OPEN_S = 5.0
_END_S = 2.0


def needs_program(link: Link) -> bool:
    """Whether `link` is SRT and this FFmpeg has none."""
    if link.protocol != "srt":
        return False
    try:
        av.open("srt://127.0.0.1:0?timeout=1", timeout=0.001).close()
    except av.ProtocolNotFoundError:
        return True
    except (av.FFmpegError, OSError):
        pass
    return False


class SrtInput:
    """The transport stream of one SRT connection, readable like a file; ends with its connection.

    `read` raises `TimeoutError` after `stall_s` without data (before the first: 5 s for a caller,
    none for a listener), and ends soon after `stop`. Raises `MissingDependency` when the program
    is not installed.
    """

    def __init__(self, link: Link, stop: threading.Event, config: IngestConfig) -> None:
        program = shutil.which(PROGRAM)
        if program is None:
            raise MissingDependency(PROGRAM, link.shown, "sudo apt install srt-tools")
        self.name = link.shown
        self._stop = stop
        self._place = link.place
        self._silent = True
        self._stall_s = config.stall_s
        self._patience_s = float("inf") if link.listens else _OPEN_S
        command = [program, "-q", "-loglevel:fatal", "-autoreconnect:no", link.url, "file://con"]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            preexec_fn=end_with_parent,  # a killed process would leave it holding its port
        )

    def __enter__(self) -> SrtInput:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.terminate()
        try:
            self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        assert self._process.stdout
        self._process.stdout.close()

    def read(self, size: int) -> bytes:
        """Up to `size` bytes as soon as there are some; empty at the end."""
        assert self._process.stdout
        pipe = self._process.stdout.fileno()
        deadline_s = time.monotonic() + self._patience_s
        while not self._stop.is_set():
            if select.select([pipe], [], [], _POLL_S)[0]:
                data = os.read(pipe, size)
                if not data and self._silent:
                    raise LinkError(f"no SRT connection to {self._place} (program ended)")
                self._silent, self._patience_s = False, self._stall_s
                return data
            if time.monotonic() > deadline_s:
                raise TimeoutError
        return b""
