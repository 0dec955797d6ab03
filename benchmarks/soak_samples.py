# SPDX-License-Identifier: Apache-2.0
"""What a run looks like from outside at one moment: `/proc` and its pages of figures."""

from __future__ import annotations

import json
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from prometheus_client.parser import text_string_to_metric_families

PROC = Path("/proc")
PAGE_TIMEOUT_S = 4.0
TRACKING, MAPPING = "slam3r", "mesher"


@dataclass(frozen=True)
class ProcessSample:
    """One process: memory, resident or swapped out [MB], and what of the resident is no file's,
    threads, open files, mapped files of `/dev/shm`."""

    label: str
    memory_mb: float
    threads: int
    files: int
    segments: frozenset[str] = frozenset()
    anonymous_mb: float = float("nan")


@dataclass(frozen=True)
class Account:
    """What the nodes have counted since they began.

    `latency_counts` are those of the mesher's output (glass to map), a number a bucket;
    `faults` are frames that were settled twice, or that were never taken; `allocated_mb` is what
    the C library of the mesher's process, which is that of all stages, has handed out; `facts`,
    by `stage.name`, are what nodes tell of themselves, as how much they hold.
    """

    tracked: int = 0
    faults: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    latency_edges_s: tuple[float, ...] = ()
    latency_counts: tuple[float, ...] = ()
    mesher_mb: float = float("nan")
    allocated_mb: float = float("nan")
    facts: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Sample:
    """Everything at `t_s` seconds after the first sample; processes by their ids."""

    t_s: float
    processes: dict[int, ProcessSample]
    account: Account

    @property
    def threads(self) -> int:
        return sum(process.threads for process in self.processes.values())

    @property
    def files(self) -> int:
        return sum(process.files for process in self.processes.values())

    @property
    def segments(self) -> int:
        """Different files of `/dev/shm` that the processes have mapped."""
        return len(frozenset().union(*(p.segments for p in self.processes.values())))


def processes_of(root: int) -> dict[int, ProcessSample]:
    """Process `root` and all that descend from it; one that ends meanwhile is left out."""
    found = {}
    for pid in _family(root):
        try:
            found[pid] = _process(pid, root)
        except (OSError, KeyError):
            continue
    return found


def _family(root: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for entry in PROC.iterdir():
        if not entry.name.isdigit():
            continue
        try:
            after_name = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        children.setdefault(int(after_name[1]), []).append(int(entry.name))
    family = [root]
    for pid in family:
        family += children.get(pid, [])
    return family


def _process(pid: int, root: int) -> ProcessSample:
    folder = PROC / str(pid)
    lines = (folder / "status").read_text().splitlines()
    status = {key: value.split() for key, _, value in (line.partition(":") for line in lines)}
    maps = (folder / "maps").read_text(errors="replace").splitlines()
    return ProcessSample(
        label="system" if pid == root else _label(folder, status["Name"][0]),
        memory_mb=sum(int(status.get(n, ["0"])[0]) for n in ("VmRSS", "VmSwap")) * 1024 / 1e6,
        threads=int(status["Threads"][0]),
        files=sum(1 for _ in (folder / "fd").iterdir()),
        segments=frozenset(line.split()[5] for line in maps if "/dev/shm/" in line),
        anonymous_mb=int(status["RssAnon"][0]) * 1024 / 1e6,
    )


def _label(folder: Path, name: str) -> str:
    words = (folder / "cmdline").read_text().split("\0")
    if "worldsystem.cli" in words and "sim" in words:
        return "simulator"
    if "worldsystem_slam3r.apart.worker" in words:
        return "reconstruction" if name == "slam3r_worker" else "reserve"
    if "rerun" in words and name.startswith("python"):
        return "rerun_launcher"
    return name.lower()


def account_of(monitor_port: int, mesher_port: int) -> Account | None:
    """What the nodes tell on both pages; None while one of them is not there."""
    try:
        system = _page(monitor_port)
        mesher = _page(mesher_port)
    except OSError:
        return None
    return account_from(system, mesher)


def account_from(system: str, mesher: str) -> Account:
    """Read the texts of the monitor's and of the mesher's `/metrics`."""
    tracked = faults = 0
    dropped: dict[str, int] = {}
    facts: dict[str, float] = {}
    latency: list[tuple[float, float]] = []
    allocated_mb = float("nan")
    for family in text_string_to_metric_families(system):
        for name, labels, value, *_ in family.samples:
            stage = labels.get("stage", "")
            if name == "worldsystem_frames_used_total" and stage == TRACKING:
                tracked = int(value)
            elif name == "worldsystem_ledger_violations_total":
                faults += int(value)
            elif name == "worldsystem_frames_in_flight":
                faults += max(0, -int(value))
            elif name == "worldsystem_frames_dropped_total":
                dropped[f"{stage}.{labels['reason']}"] = int(value)
            elif name == "worldsystem_latency_seconds_bucket" and stage == MAPPING:
                latency.append((float(labels["le"]), value))
            elif name == "worldsystem_process_allocated_bytes" and stage == MAPPING:
                allocated_mb = value / 1e6
            elif name == "worldsystem_node_fact":
                facts[f"{stage}.{labels['fact']}"] = value
    latency.sort()
    return Account(
        tracked=tracked,
        faults=faults,
        dropped=dropped,
        latency_edges_s=tuple(edge for edge, _ in latency),
        latency_counts=tuple(float(n) for n in np.diff([0.0, *(up_to for _, up_to in latency)])),
        mesher_mb=_mesher_mb(mesher),
        allocated_mb=allocated_mb,
        facts=facts,
    )


def _mesher_mb(text: str) -> float:
    for family in text_string_to_metric_families(text):
        if family.name == "worldsystem_mesh_memory_bytes":
            return float(family.samples[0].value) / 1e6
    return float("nan")


def _page(port: int) -> str:
    url = f"http://127.0.0.1:{port}/metrics"
    with urllib.request.urlopen(url, timeout=PAGE_TIMEOUT_S) as answer:
        return str(answer.read().decode())


def unexplained_frames(run_folder: Path) -> float:
    """What the run's own summary says at its end; NaN when it left none."""
    path = run_folder / "summary.json"
    if not path.is_file():
        return float("nan")
    results = json.loads(path.read_text())["results"]
    value = next((e["value"] for e in results if e["id"] == "demo.unexplained_frames"), None)
    return float("nan") if value is None else float(value)
