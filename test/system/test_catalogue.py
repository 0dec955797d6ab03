# SPDX-License-Identifier: Apache-2.0
"""What runs left is found, compared and removed, and never more than was asked for."""

from __future__ import annotations

import json
import re
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import cv2
import numpy as np
import pytest

from worldsystem.catalogue.prune import remove, to_prune
from worldsystem.catalogue.runs import NoSuchRun, find_run, read_runs
from worldsystem.catalogue.tables import comparison, details, listing
from worldsystem.cli import main
from worldsystem_storage.bag_writer import BagWriter
from worldsystem_storage.config import StorageConfig

NOW = datetime(2026, 5, 20, 12, tzinfo=UTC)


def make_run(base: Path, name: str, *, days_old: float, ate: float = 1.0, size: int = 1000) -> Path:
    folder = base / name
    (folder / "pictures").mkdir(parents=True)
    started = NOW - timedelta(days=days_old)
    summary = {
        "source": "film <1>.mp4",
        "backend": "geometric",
        "started_ns": int(started.timestamp() * 1e9),
        "duration_s": 12.5,
        "commit": "abc1234",
        "keyframes": 20,
        "triangles": 4000,
        "results": [
            {"id": "demo.ate_percent", "value": ate},
            {"id": "demo.mesh_fscore", "value": None},
        ],
        "ledger": [{"stage": "slam3r", "dropped": {"queue_full": 3, "late": 0}}],
    }
    (folder / "summary.json").write_text(json.dumps(summary))
    (folder / "report.html").write_text("<p>report</p>")
    cv2.imwrite(str(folder / "pictures" / "mesh_a.png"), np.zeros((9, 16, 3), np.uint8))
    (folder / "mesh.ply").write_bytes(bytes(size))
    return folder


def test_a_summary_of_before_that_holds_a_password_is_shown_without(tmp_path):
    path = make_run(tmp_path, "old", days_old=1) / "summary.json"
    path.write_text(path.read_text().replace("film <1>.mp4", "rtsp://a:s3kret@b"))
    runs = read_runs(tmp_path)
    for text in (listing(runs), details(runs[0])):
        assert "rtsp://a:***@b" in text
        assert "s3kret" not in text


@pytest.fixture
def base(tmp_path) -> Path:
    make_run(tmp_path, "old", days_old=40, size=600_000)
    make_run(tmp_path, "middle", days_old=10, ate=2.0, size=300_000)
    make_run(tmp_path, "new", days_old=1, ate=0.5, size=200_000)
    (tmp_path / "notes").mkdir()
    (tmp_path / "index.html").write_text("")
    return tmp_path


def test_runs_are_found_newest_first_and_other_folders_are_not(base):
    runs = read_runs(base)
    assert [run.name for run in runs] == ["new", "middle", "old"]
    assert runs[0].figures == {"ate_percent": 0.5}
    assert runs[0].dropped == {"slam3r.queue_full": 3}
    assert runs[2].size_bytes > 600_000
    assert read_runs(base / "nowhere") == []


def test_a_run_that_was_killed_is_listed_with_what_to_do(base):
    (base / "killed" / "bag").mkdir(parents=True)
    (base / "torn").mkdir()
    (base / "torn" / "summary.json").write_text('{"source": ')
    text = listing(read_runs(base))
    assert len(re.findall("unfinished.*bag recover", text)) == 2


def test_a_run_is_found_by_name_by_path_or_as_the_latest(base):
    assert find_run(base, "latest").name == "new"
    assert find_run(base, "old").name == "old"
    assert find_run(Path("elsewhere"), str(base / "middle")).name == "middle"
    with pytest.raises(NoSuchRun, match="the newest: new, middle, old"):
        find_run(base, "missing")


def test_details_and_comparison_tell_the_figures_and_their_change(base):
    assert re.search(r"ate_percent\s+0\.5\b", details(find_run(base, "new")))
    text = comparison([find_run(base, "middle"), find_run(base, "new")])
    assert re.search(r"ate_percent\s+2\s+0\.5\s+-75\.0 %", text)
    assert re.search(r"mesh_fscore\s+–\s+–", text)


def test_pruning_takes_the_oldest_and_never_the_newest(base):
    runs = read_runs(base)

    def going(**limits: float) -> list[str]:
        return [run.name for run in to_prune(runs, now=NOW, **limits)]

    assert going(older_than_days=30) == ["old"]
    assert going(older_than_days=0) == ["old", "middle"]
    assert going(larger_than_gb=0.0006) == ["old"]
    assert going(larger_than_gb=0.0) == ["old", "middle"]
    assert going(older_than_days=30, larger_than_gb=0.0003) == ["old", "middle"]
    assert going() == []
    freed, reasons = remove(to_prune(runs, older_than_days=30, now=NOW))
    assert freed > 600_000
    assert reasons == []
    assert [run.name for run in read_runs(base)] == ["new", "middle"]


@pytest.mark.parametrize("part", ["bag", "bag_2"])
def test_what_is_being_recorded_now_is_told_and_never_pruned(base, part):
    bag = BagWriter(base / "old" / part, StorageConfig(reserve_mib=1))
    runs = read_runs(base)
    assert [run.name for run in runs if run.going_on] == ["old"]
    assert "being recorded now" in listing(runs)
    assert [run.name for run in to_prune(runs, older_than_days=0, now=NOW)] == ["middle"]
    assert [run.name for run in to_prune(runs, larger_than_gb=0.0, now=NOW)] == ["middle"]
    bag.close()
    assert not any(run.going_on for run in read_runs(base))


def test_the_command_removes_only_when_told_so_twice(base, capsys):
    assert main(["runs", "--folder", str(base), "prune"]) == 2
    assert main(["runs", "--folder", str(base), "prune", "--keep", "0.0006"]) == 0
    assert "nothing was removed" in capsys.readouterr().out
    assert len(read_runs(base)) == 3
    assert main(["runs", "--folder", str(base), "prune", "--keep", "0.0006", "--yes"]) == 0
    assert [run.name for run in read_runs(base)] == ["new", "middle"]
    assert main(["runs", "--folder", str(base)]) == 0
    assert "middle" in capsys.readouterr().out
    assert main(["runs", "--folder", str(base), "show", "missing"]) == 2


def test_a_run_that_cannot_be_removed_is_named_and_the_others_go(base, capsys, monkeypatch):
    really = shutil.rmtree

    def rmtree(folder):
        if folder.name == "old":
            raise PermissionError(13, "Permission denied", str(folder / "bag"))
        really(folder)

    monkeypatch.setattr(shutil, "rmtree", rmtree)
    assert main(["runs", "--folder", str(base), "prune", "--keep", "0", "--yes"]) == 2
    assert [run.name for run in read_runs(base)] == ["new", "old"]
    assert re.search(r"removed, 0\.\d MB freed\n.*old/bag: Permission", capsys.readouterr().out)


def test_the_index_of_a_folder_that_is_not_there_is_wrong_use(base, capsys):
    assert main(["runs", "--folder", str(base / "nowhere"), "index"]) == 2
    assert "nowhere" in capsys.readouterr().err


def test_the_index_links_every_report_and_escapes_what_runs_are_called(base):
    assert main(["runs", "--folder", str(base), "index"]) == 0
    page = (base / "index.html").read_text()
    assert page.count("/report.html") == 3
    assert "film &lt;1&gt;.mp4" in page
    assert "new/pictures/mesh_a.png" in page
    assert not re.search(r"(src|href)=.https?:", page)


@pytest.mark.parametrize("limit", ["--keep", "--older-than"])
@pytest.mark.parametrize("amount", ["nan", "-1", "inf", "some"])
def test_a_limit_that_is_no_amount_is_wrong_use_and_removes_nothing(base, limit, amount, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["runs", "--folder", str(base), "prune", f"{limit}={amount}", "--yes"])
    assert limit in capsys.readouterr().err
    assert len(read_runs(base)) == 3


def test_nothing_is_older_than_the_calendar(base):
    assert to_prune(read_runs(base), older_than_days=1e9, now=NOW) == []


def test_a_file_that_goes_while_runs_are_listed_is_left_out(base, monkeypatch):
    beside = base / "new" / ".mesh.ply.new"
    beside.write_bytes(bytes(10))
    really = Path.is_file

    def is_file(path: Path) -> bool:
        there = really(path)
        if path == beside:
            path.unlink(missing_ok=True)  # renamed by the run, right after
        return there

    monkeypatch.setattr(Path, "is_file", is_file)
    assert [run.name for run in read_runs(base)] == ["new", "middle", "old"]
    assert not beside.exists()


def test_what_a_run_without_a_summary_came_to_is_not_known_and_not_nothing(base):
    (base / "killed" / "bag").mkdir(parents=True)
    killed = find_run(base, "killed")
    text = comparison([find_run(base, "middle"), killed])
    for name in ("duration_s", "keyframes", "triangles", "dropped"):
        assert re.search(rf"^{name} +\S+ +– *$", text, re.MULTILINE)
    assert "-100" not in text
    for told in (text, details(killed)):
        assert "bag recover" in told
    assert "keyframes" not in details(killed)
