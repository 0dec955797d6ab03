# SPDX-License-Identifier: Apache-2.0
"""What `worldsystem doctor` says is there, and what is not."""

from __future__ import annotations

import os
import re
import socket
from pathlib import Path

import pytest

from worldsystem.doctor import _PORTS, _gpu, _ports, _weights

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


@pytest.mark.parametrize(("driver", "well"), [("560.35.03", False), ("580.65.06", True)])
def test_a_driver_that_is_too_old_for_our_cuda_is_said(tmp_path, monkeypatch, driver, well):
    tool = tmp_path / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\necho 'NVIDIA GeForce RTX 3060, 12288 MiB, {driver}'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    (finding,) = _gpu()
    assert (finding.well, finding.required) == (well, False)
    assert "driver 580" in finding.cure
