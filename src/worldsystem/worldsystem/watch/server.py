# SPDX-License-Identifier: Apache-2.0
"""`/metrics` and `/health` of the whole system over HTTP."""

from __future__ import annotations

from worldsystem.config import MonitorConfig
from worldsystem.watch.metrics import exposition
from worldsystem.watch.state import SystemState, problems
from worldsystem_core.status_server import Health, StatusServer, StatusSettings


def watch_server(config: MonitorConfig, state: SystemState) -> StatusServer:
    """Serves what `state` knows; see `StatusServer`."""
    settings = StatusSettings(
        host=config.host,
        port=config.port,
        token_file=config.token_file,
        tls_certificate=config.tls_certificate,
        tls_key=config.tls_key,
        setting="monitor.port",
    )
    return StatusServer(settings, lambda: exposition(state.nodes()), lambda: Health(*health(state)))


def health(state: SystemState) -> tuple[bool, dict[str, object]]:
    """Whether all is well, and the body of `/health`."""
    nodes = state.nodes()
    wrong = problems(nodes)
    each = {node.name: {"state": node.state, "problem": node.problem} for node in nodes}
    return not wrong, {"status": "degraded" if wrong else "ok", "problems": wrong, "nodes": each}
