# SPDX-License-Identifier: Apache-2.0
"""The mesher's health and metrics over HTTP."""

from __future__ import annotations

import json
import urllib.error
import urllib.request

import pytest
from prometheus_client.parser import text_string_to_metric_families

from worldsystem_core.status_server import StatusServer
from worldsystem_mesh.config import MeshConfig
from worldsystem_mesh.metrics import metrics_server

FACTS = {"blocks": 12, "last_integrate_ms": 3.5, "stream_bytes": 900, "method": "poisson"}


@pytest.fixture
def problem():
    return []


@pytest.fixture
def server(problem):
    running = metrics_server(MeshConfig(metrics_port=0), lambda: FACTS, lambda: " ".join(problem))
    yield running
    running.close()


def get(server: StatusServer, path: str) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{server.port}{path}", timeout=5) as answer:
        return answer.read().decode()


def test_prometheus_reads_every_number(server):
    families = {f.name: f for f in text_string_to_metric_families(get(server, "/metrics"))}
    assert families["worldsystem_mesh_blocks"].samples[0].value == 12
    assert families["worldsystem_mesh_last_integrate_ms"].samples[0].value == 3.5
    assert families["worldsystem_mesh_stream_bytes"].type == "counter"
    assert families["worldsystem_mesh_info"].samples[0].labels == {"method": "poisson"}


def test_health_says_ok_or_what_is_wrong(server, problem):
    assert json.loads(get(server, "/health")) == {"status": "ok", **FACTS}
    problem.append("the disk is full")
    with pytest.raises(urllib.error.HTTPError, match="503") as refused:
        get(server, "/health")
    assert json.loads(refused.value.read())["status"] == "the disk is full"


def test_other_pages_are_not_there(server):
    with pytest.raises(urllib.error.HTTPError, match="404"):
        get(server, "/etc/passwd")


def test_a_taken_port_is_said_and_harms_nothing(server, caplog):
    second = metrics_server(MeshConfig(metrics_port=server.port), dict, str)
    assert second.port == 0
    assert f"port {server.port}" in caplog.text
    assert "set mesher.metrics_port" in caplog.text
    second.close()
    assert json.loads(get(server, "/health"))["status"] == "ok"
