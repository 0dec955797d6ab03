# SPDX-License-Identifier: Apache-2.0
"""Runs on one machine have domains of their own, unless a person says which."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from worldsystem import dds_domain
from worldsystem.dds_domain import VARIABLE, own_domain
from worldsystem_core.dds_domain import mark


@pytest.fixture(autouse=True)
def few_domains(monkeypatch):
    """Other runs on this machine have the low ones, perhaps."""
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr(dds_domain, "_DOMAINS", range(900, 903))


def test_runs_at_the_same_time_have_different_domains_and_the_first_is_free_again():
    with own_domain() as first:
        assert os.environ[VARIABLE] == str(first) == "900"
        del os.environ[VARIABLE]  # as in another terminal
        with own_domain() as second:
            assert second == 901
    assert VARIABLE not in os.environ
    with own_domain() as again:
        assert again == first


def test_what_a_run_starts_has_its_domain():
    with own_domain() as domain:
        told = subprocess.run(
            [sys.executable, "-c", f"import os; print(os.environ['{VARIABLE}'])"],
            capture_output=True,
            text=True,
            check=True,
        )
    assert told.stdout.strip() == str(domain)


def test_a_domain_that_a_person_set_is_kept_and_warned_of_where_another_run_has_it(
    monkeypatch, caplog
):
    monkeypatch.setenv(VARIABLE, "901")
    with own_domain() as first:
        assert first == 901
        assert not caplog.records
        with own_domain() as second:
            assert second == 901
        assert "another run" in caplog.text
    assert os.environ[VARIABLE] == "901"


def test_a_domain_is_free_when_its_run_was_killed():
    code = "import time; from worldsystem.dds_domain import _claimed; claim = _claimed(902)"
    code += "; print(claim is not None, flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as run:
        assert run.stdout
        assert run.stdout.readline().strip() == b"True"
        assert dds_domain._claimed(902) is None
        run.kill()
    claim = dds_domain._claimed(902)
    assert claim is not None
    claim.close()


def test_a_run_keeps_out_of_a_domain_with_a_source_that_no_run_started(monkeypatch, caplog):
    """As `ros2 launch`, a container or `worldsystem node ingest` has; there may be several."""
    sources = [mark(900), mark(900)]
    assert None not in sources
    with own_domain() as domain:
        assert domain == 901
    monkeypatch.setenv(VARIABLE, "900")
    with own_domain():
        assert "another run" in caplog.text
    monkeypatch.delenv(VARIABLE)
    for source in sources:
        source.close()
    with own_domain() as domain:
        assert domain == 900


def test_a_domain_that_is_none_is_one_line_and_leaves_no_folder(monkeypatch, tmp_path, capsys):
    pytest.importorskip("rclpy", reason="ROS is not set up: run these through `make test`")
    from worldsystem.cli import main

    monkeypatch.setenv(VARIABLE, "one")
    out = tmp_path / "out"
    for words in (["status"], ["map", "save"], ["run", __file__, "--out", str(out)]):
        assert main(words) == 2
        assert "ROS_DOMAIN_ID=one is no DDS domain" in capsys.readouterr().err
    assert not out.exists()
