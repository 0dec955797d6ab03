# SPDX-License-Identifier: Apache-2.0
"""Rerun's own server with its web viewer, as a child of this process."""

from __future__ import annotations

import errno
import importlib.util
import logging
import socket
import subprocess
import threading
from collections import deque
from pathlib import Path

from worldsystem_core.child_process import die_with_parent
from worldsystem_core.errors import MissingDependency, PortInUse
from worldsystem_viewer.addresses import cannot_listen, ip_of, reached_at
from worldsystem_viewer.config import ViewerConfig

log = logging.getLogger(__name__)
MISSING = "rerun-sdk", "logging to Rerun", "pip install rerun-sdk"
_END_S = 5.0
_LAST_LINES = 5


class RerunServer:
    """Listens at `host` from `start` on; when it ends before `end`, the log says why.

    Made, it has seen that it can listen: raises `MissingDependency`, `PortInUse`, or `ConfigError`
    for a host that is none of this machine.
    """

    def __init__(self, config: ViewerConfig) -> None:
        self._config = config
        ports = {"rerun_port": config.rerun_port, "rerun_web_port": config.rerun_web_port}
        self._ip = _free_address(config.host, ports)
        # Rerun's own `serve_*` functions listen on every interface, its command line need not
        self._command = [str(_program()), "--serve-web", "--bind", self._ip]
        self._command += ["--port", str(config.rerun_port)]
        self._command += ["--web-viewer-port", str(config.rerun_web_port)]
        self._command += ["--server-memory-limit", f"{config.rerun_mb}MiB"]
        self._is_ending = False

    @property
    def url(self) -> str:
        """Where to send what is logged."""
        return f"rerun+http://{reached_at(self._ip)}:{self._config.rerun_port}/proxy"

    def start(self) -> None:
        """Begin the process; it listens a moment later."""
        quiet = subprocess.DEVNULL
        self.process = subprocess.Popen(
            self._command,
            stdin=quiet,
            stdout=quiet,
            stderr=subprocess.PIPE,
            process_group=0,
            preexec_fn=die_with_parent,  # else it would hold the ports of the one who comes back
        )
        self._listening = threading.Thread(target=self._listen, name="rerun_server", daemon=True)
        self._listening.start()
        web_port = self._config.rerun_web_port
        log.info("Rerun's web viewer on http://%s:%d", self._config.host, web_port)

    def end(self) -> None:
        """End the process and wait for it."""
        self._is_ending = True
        self.process.terminate()
        try:
            self.process.wait(timeout=_END_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(timeout=_END_S)
        self._listening.join(timeout=_END_S)

    def _listen(self) -> None:
        """Take what it complains of, so that it never waits for a reader, until it ends."""
        assert self.process.stderr is not None
        last: deque[str] = deque(maxlen=_LAST_LINES)
        with self.process.stderr as lines:
            for line in lines:
                last.append(line.decode(errors="replace").strip())
        code = self.process.wait()
        if not self._is_ending:
            words = " ".join(filter(None, last)) or "it said nothing"
            log.warning("Rerun shows nothing more: its server ended (code %d): %s", code, words)


def _free_address(host: str, ports: dict[str, int]) -> str:
    """The address that `host` stands for, where `ports`, by their settings, can be listened on."""
    for option, port in ports.items():
        try:
            ip = ip_of(host)
            with socket.socket(socket.AF_INET6 if ":" in ip else socket.AF_INET) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((ip, port))
        except (OSError, UnicodeError) as error:
            if getattr(error, "errno", None) == errno.EADDRINUSE:
                raise PortInUse("Rerun", port, option) from error
            raise cannot_listen(host, port, option, error) from error
    return ip


def _program() -> Path:
    """Rerun's program itself: its module waits for it in Python, and may end without it."""
    module = importlib.util.find_spec("rerun_cli")
    if module is None or module.origin is None:
        raise MissingDependency(*MISSING)
    return Path(module.origin).with_name("rerun")
