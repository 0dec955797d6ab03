# SPDX-License-Identifier: Apache-2.0
"""What `worldsystem doctor` says is there, and what is not."""

from __future__ import annotations

import re
import socket
from pathlib import Path

from worldsystem.doctor import _PORTS, _ports, _weights

ROOT = Path(__file__).resolve().parents[2]


def test_weights_that_were_fetched_are_found(tmp_path, monkeypatch):
    monkeypatch.delenv("WORLDSYSTEM_WEIGHTS", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (finding,) = _weights()
    assert not finding.well
    assert "make weights" in finding.cure
    (tmp_path / "worldsystem" / "weights").mkdir(parents=True)
    (finding,) = _weights()
    assert finding.well
    assert finding.found == str(tmp_path / "worldsystem" / "weights")


def test_weights_in_a_folder_of_ones_own_are_found(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLDSYSTEM_WEIGHTS", str(tmp_path))
    (finding,) = _weights()
    assert (finding.well, finding.found) == (True, str(tmp_path))


def test_every_port_that_a_run_opens_is_looked_at():
    page = (ROOT / "docs/parameters.md").read_text()
    sections = re.findall(r"^\| `(?:\w+_)?port` \| int \| `(\d+)` \|", page, flags=re.MULTILINE)
    assert {int(port) for port in sections} - {8766, 0} == _PORTS.keys(), "8766 opens when asked"


def test_a_port_that_is_taken_is_said_with_who_holds_it(monkeypatch):
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        monkeypatch.setattr("worldsystem.doctor._PORTS", {port: "web page"})
        (finding,) = _ports()
    assert not finding.well
    assert str(port) in finding.cure
