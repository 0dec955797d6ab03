# SPDX-License-Identifier: Apache-2.0
"""`worldsystem sim` tells by its exit code whether pictures came, and by its last line why not."""

from __future__ import annotations

import pytest

from worldsystem import simulate
from worldsystem.cli import main
from worldsystem_sim.sender import SendStats


@pytest.fixture
def flown(monkeypatch):
    """Fly a drone whose pictures meet the given fates; gives the exit code."""

    def fly(fates: list[str], url: str = "ws://127.0.0.1:5001") -> int:
        stats = SendStats(link_error="the connection was refused")
        stats.fate.update(enumerate(fates))

        class Flown:
            def __init__(self, config: object) -> None:
                pass

            def run(self, *_: object) -> SendStats:
                return stats

        monkeypatch.setattr(simulate, "Simulator", Flown)
        monkeypatch.setattr(simulate.signal, "signal", lambda *_: None)
        return simulate.simulate([f"url={url}"])

    return fly


@pytest.mark.parametrize("fate", ["sent", "corrupted", "truncated", "bit_flipped", "lost"])
def test_a_flight_is_good_whose_pictures_met_the_fate_that_was_asked_for(flown, fate, capsys):
    assert flown(["unconnected", "waiting_for_key", fate]) == 0
    assert not capsys.readouterr().out


@pytest.mark.parametrize("fates", [[], ["unconnected"] * 3, ["unconnected", "waiting_for_key"]])
def test_a_flight_of_which_nothing_arrived_fails_and_says_why_and_what_to_do(flown, fates, capsys):
    assert flown(fates, "ws://10.0.0.9:5001/?token=secret") == 1
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith(
        "no picture reached ws://10.0.0.9:5001/: the connection was refused; set"
    )
    assert "simulator.url" in last
    assert "secret" not in last


def test_a_place_where_no_truth_can_be_written_is_said_before_the_flight(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main(["sim", "ws://127.0.0.1:9", "--out", str(tmp_path / "file" / "truth")]) == 2
    told = capsys.readouterr()
    assert "file" in told.err
    assert "preparing" not in told.out


def test_no_part_of_a_password_is_told_where_nothing_arrived(flown, capsys):
    assert flown([], "ws://me:12?34@10.0.0.9:5001") == 1
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("no picture reached ws://***@10.0.0.9:5001: ")
