# SPDX-License-Identifier: Apache-2.0
"""The system as a whole: states, health, metrics, the table, and dashboards that ask what is."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from worldsystem.watch.commands import told
from worldsystem.watch.metrics import exposition
from worldsystem.watch.server import health
from worldsystem.watch.state import SystemState, problems
from worldsystem.watch.table import table
from worldsystem_core.latency import LatencyHistogram
from worldsystem_core.ledger import LedgerState, StageReport
from worldsystem_core.process_figures import _Allocated, process_figures
from worldsystem_ingest.server.metrics import exposition as ingest_exposition
from worldsystem_ingest.stream.status import ServerStatus, StreamStatus

CONFIG = Path(__file__).resolve().parents[2] / "config"
DASHBOARDS = sorted((CONFIG / "grafana").glob("*.json"))
WORDS = {
    "rate", "sum", "by", "le", "histogram_quantile", "avg_over_time", "stage", "stream", "max",
}  # fmt: skip


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def report(
    stage: str, used: int = 0, *, at_s=1.0, violations: int = 0, delays_s=(), **dropped: int
):
    histogram = LatencyHistogram()
    for delay_s in delays_s:
        histogram.add(delay_s)
    ledger = LedgerState(stage, used + sum(dropped.values()), used, dropped)
    counts = tuple(histogram.counts())
    return StageReport(
        stamp_ns=round(at_s * 1e9), ledger=ledger, violations=violations, latency_counts=counts
    )


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def system(clock: Clock) -> SystemState:
    return SystemState(clock)


def diagnose(system: SystemState, name: str, warned: bool = False, **facts: object) -> None:
    words = {key.replace("_", ".", 1): str(value) for key, value in facts.items()}
    system.diagnostics(name, warned=warned, message="lost" if warned else "running", facts=words)


def samples(text: bytes) -> dict[tuple[str, ...], float]:
    return {
        (s.name, *(s.labels[k] for k in sorted(s.labels))): s.value
        for family in text_string_to_metric_families(text.decode())
        for s in family.samples
    }


def test_a_rate_is_the_frames_used_between_two_reports(system) -> None:
    system.report(report("slam3r", 10, at_s=100.0))
    system.report(report("slam3r", 40, at_s=102.0))
    assert system.nodes()[0].rate_hz == 15


def test_a_rate_does_not_jump_where_a_late_stage_tells_twice_in_a_row(system, clock) -> None:
    """Ten frames a second, told by what came late and, right after, by the timer."""
    rates = []
    for second in range(1, 30, 2):
        for at_s in (second, second + 0.001, second + 0.1):
            system.report(report("slam3r", round(10 * at_s), at_s=at_s))
            rates.append(system.nodes()[0].rate_hz)
            clock.now_s += 0.01  # however near to each other they arrive
    assert rates[3:] == pytest.approx([10.0] * len(rates[3:]), rel=0.06)


def test_a_rate_is_found_again_after_a_clock_was_set_back(system) -> None:
    for used, at_s in ((10, 5000.0), (20, 5001.0), (30, 7.0), (50, 8.0)):
        system.report(report("slam3r", used, at_s=at_s))
    assert system.nodes()[0].rate_hz == 20


def test_a_node_that_says_nothing_for_four_seconds_is_silent(system, clock) -> None:
    system.report(report("mesher"))
    clock.now_s += 3.9
    assert not problems(system.nodes())
    clock.now_s += 0.2
    assert problems(system.nodes()) == ["mesher: silent for 4 s"]
    system.report(report("mesher"))
    assert not problems(system.nodes())


def test_health_names_what_is_wrong(system) -> None:
    assert health(system)[0] is False
    system.report(report("mesher"))
    assert health(system)[0] is True
    diagnose(system, "slam3r", warned=True)
    system.report(report("ingest", violations=2))
    well, body = health(system)
    assert not well
    assert body["problems"] == ["slam3r: lost", "ingest: 2 faults in its account"]


def test_another_process_under_the_same_name_is_a_restart(system) -> None:
    for pid in (1, 1, 2):
        diagnose(system, "mesher", process_pid=pid)
    assert system.nodes()[0].restarts == 1


def test_a_process_of_the_same_number_that_has_worked_less_is_a_restart(system) -> None:
    """As in containers, where each counts its processes from one."""
    for cpu_s in (3.0, 4.0, 4.0, 0.5, 0.7):
        diagnose(system, "mesher", process_pid=7, process_cpu_s=cpu_s)
    assert system.nodes()[0].restarts == 1


def test_ten_thousand_names_do_not_grow_the_table(system) -> None:
    for number in range(10_000):
        system.report(report(f"node{number}"))
    assert len(system.nodes()) == 256


def test_figures_that_are_no_numbers_count_as_nothing(system) -> None:
    diagnose(system, "mesher", process_memory_mb="much", queue="")
    assert system.nodes()[0].memory_mb == 0


def test_metrics_tell_drops_by_reason_and_the_latency_of_each_stage(system) -> None:
    system.report(report("mesher", 3, delays_s=(0.1, 0.1, 90.0), queue_full=2))
    diagnose(system, "mesher", process_memory_mb=12.5)
    got = samples(exposition(system.nodes()))
    assert got["worldsystem_frames_dropped_total", "queue_full", "mesher"] == 2
    assert got["worldsystem_frames_used_total", "mesher"] == 3
    assert got["worldsystem_process_memory_bytes", "mesher"] == 12.5e6
    assert got["worldsystem_latency_seconds_bucket", "+Inf", "mesher"] == 3
    assert got["worldsystem_latency_seconds_bucket", "60", "mesher"] == 2
    assert got["worldsystem_healthy",] == 1


def test_metrics_tell_what_nodes_tell_of_themselves_in_numbers(system) -> None:
    diagnose(system, "splats", splats=7, voxel="0.05", process_memory_mb=12, queue=3,
             backend="geometric", ended=True, health="nan")  # fmt: skip
    got = samples(exposition(system.nodes()))
    facts = {key[1]: value for key, value in got.items() if key[0] == "worldsystem_node_fact"}
    assert facts == {"splats": 7.0, "voxel": 0.05}


def test_metrics_of_no_node_are_valid_and_say_unhealthy(system) -> None:
    assert samples(exposition(system.nodes())) == {("worldsystem_healthy",): 0}


def test_the_table_has_a_line_for_each_node_with_its_drops(system) -> None:
    system.report(report("mesher", 3, delays_s=(0.1,), queue_full=2))
    system.report(report("ingest"))
    lines = table(system.nodes()).splitlines()
    assert [line.split()[0] for line in lines] == ["node", "ingest", "mesher"]
    assert lines[2].endswith("queue_full 2")
    assert "–" in lines[1]


def test_the_exit_code_tells_health(system, clock, capsys) -> None:
    assert told(system, as_json=False) == 3
    system.report(report("mesher"))
    assert told(system, as_json=False) == 0
    clock.now_s += 10
    assert told(system, as_json=True) == 1
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["status"] == "degraded"


def test_a_process_knows_its_memory_and_its_processor_time() -> None:
    figures = process_figures()
    end_s = time.thread_time() + 0.03
    while time.thread_time() < end_s:
        pass
    assert figures["process.memory_mb"] > 5
    assert process_figures()["thread.cpu_s"] > figures["thread.cpu_s"]


def test_a_process_knows_how_much_its_c_library_has_handed_out() -> None:
    before = _Allocated().newest_bytes()
    held = bytearray(50_000_000)
    grown = _Allocated().newest_bytes() - before
    assert len(held) <= grown < 1.1 * len(held)
    assert process_figures()["process.allocated_mb"] > 0


def known_names() -> set[str]:
    """Every metric that the monitor and the video server can give."""
    system = SystemState()
    system.report(report("mesher", 1, delays_s=(0.1,), queue_full=1))
    stream = StreamStatus(consumer_queues={1: 0}, drops={"late": 1})
    ingest = ServerStatus.of({"main": stream}, uptime_s=1.0)
    texts = exposition(system.nodes()) + ingest_exposition(ingest)
    ends = {"counter": "_total", "histogram": "_bucket"}
    families = text_string_to_metric_families(texts.decode())
    return {family.name + ends.get(family.type, "") for family in families}


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_every_query_of_a_dashboard_names_a_metric_that_exists(path: Path) -> None:
    known = known_names()
    queries = [t["expr"] for panel in json.loads(path.read_text())["panels"]
               for t in panel["targets"]]  # fmt: skip
    assert len(queries) > 8
    for query in queries:
        names = set(re.findall(r"[a-z_][a-z0-9_]*", re.sub(r"\[\w+\]|\"[^\"]*\"", "", query)))
        assert names - WORDS, query
        assert names - WORDS <= known, query


def test_prometheus_scrapes_the_ports_that_are_the_defaults() -> None:
    from worldsystem.config import MonitorConfig
    from worldsystem_ingest.config import IngestConfig
    from worldsystem_mesh.config import MeshConfig

    jobs = yaml.safe_load((CONFIG / "prometheus.yml").read_text())["scrape_configs"]
    ports = {j["job_name"]: int(j["static_configs"][0]["targets"][0].split(":")[1]) for j in jobs}
    assert ports == {
        "worldsystem": MonitorConfig().port,
        "ingest": IngestConfig().port,
        "mesher": MeshConfig().metrics_port,
    }


@pytest.mark.parametrize("text", ["nan", "inf", "-inf"])
def test_figures_that_are_not_finite_count_as_nothing(system, text) -> None:
    diagnose(system, "mesher", process_memory_mb=text, process_pid=text, queue=text)
    (node,) = system.nodes()
    assert (node.queue, node.pid, node.memory_mb) == (0, 0, 0.0)
    assert samples(exposition([node]))["worldsystem_queue_size", "mesher"] == 0
