# SPDX-License-Identifier: Apache-2.0
"""Recorded runs again: what is finished stays, what failed or was cut off does no harm."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import av
import numpy as np
import pytest

from worldsystem.cli import main
from worldsystem.reprocess import task as task_module
from worldsystem.reprocess.plan import ReprocessError, Settings, plan, task_from_json, task_to_json
from worldsystem.reprocess.pool import (
    Room,
    check_that_one_fits,
    chosen_pool,
    on_this_machine,
)
from worldsystem.reprocess.task import claimed_domain
from worldsystem_core.dds_domain import claim, mark

# Stands for `worldsystem run`: does what the recording says, and notes that it was asked.
STAND_IN = """
import json, os, sys, time
from pathlib import Path
recording, out = Path(sys.argv[1]), Path(sys.argv[2])
with recording.with_suffix(".asked").open("a") as asked:
    asked.write(f"{os.environ['ROS_DOMAIN_ID']}\\n")
recording.with_suffix(".broker").write_text(os.environ.get("RABBITMQ_URL", "none"))
out.mkdir()
word = recording.read_text()
(out / "half").write_text("done")
if word == "hang":
    time.sleep(600)
if word == "slow":
    time.sleep(1.0)
if word == "fail":
    print("worldsystem: the recording is broken")
    sys.exit(2)
if word == "die":
    os.kill(os.getpid(), 9)
results = [{"id": "run.ate_percent", "value": 1.5}]
(out / "summary.json").write_text(json.dumps({"keyframes": 7, "triangles": 9, "results": results}))
"""
DRIVER = """
import sys
from worldsystem.cli import main
from worldsystem.reprocess import task
stand_in = sys.argv[1]
task.command_of = lambda one, part: [sys.executable, "-c", stand_in, one.recording, str(part)]
sys.exit(main(sys.argv[2:]))
"""


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    def command(task, part: Path) -> list[str]:
        return [sys.executable, "-c", STAND_IN, task.recording, str(part)]

    monkeypatch.setattr(task_module, "command_of", command)


def recordings(folder: Path, **words: str) -> list[str]:
    for name, word in words.items():
        (folder / f"{name}.mp4").write_text(word)
    return [str(folder / f"{name}.mp4") for name in words]


def reprocess(runs: list[str], out: Path, *words: str) -> int:
    return main(["reprocess", *runs, "--out", str(out), "--ray", "no", *words])


def results(out: Path) -> list[dict]:
    return json.loads((out / "results.json").read_text())["runs"]


def asked(run: str) -> int:
    file = Path(run).with_suffix(".asked")
    return len(file.read_text().splitlines()) if file.exists() else 0


@pytest.mark.usefixtures("stand_in")
def test_results_are_told_in_the_order_given_whatever_ends_first(tmp_path, capsys):
    runs = recordings(tmp_path, slow="slow", quick="ok", also="ok")
    assert reprocess(runs, tmp_path / "out", "--workers", "3") == 0
    found = results(tmp_path / "out")
    assert [run["name"] for run in found] == ["slow", "quick", "also"]
    assert all(run["state"] == "finished" and run["keyframes"] == 7 for run in found)
    assert found[0]["figures"] == {"ate_percent": 1.5}
    rows = capsys.readouterr().out.split("\n\n")[1].splitlines()
    assert [row.split()[0] for row in rows] == ["run", "slow", "quick", "also"]


@pytest.mark.usefixtures("stand_in")
def test_one_that_fails_or_dies_stops_no_other_and_leaves_only_its_log(tmp_path):
    runs = recordings(tmp_path, broken="fail", dead="die", good="ok")
    out = tmp_path / "out"
    assert reprocess(runs, out, "--workers", "1") == 1
    broken, dead, good = results(out)
    assert (broken["state"], dead["state"], good["state"]) == ("failed", "failed", "finished")
    assert broken["problem"] == "exit code 2: the recording is broken"
    assert dead["problem"] == "signal 9"
    assert "broken" in (out / "logs" / "broken.log").read_text()
    left = {path.name for path in out.iterdir()}
    assert left == {"good", "logs", "results.json", ".lock"}


@pytest.mark.usefixtures("stand_in")
def test_what_is_finished_is_skipped_and_what_failed_is_tried_again(tmp_path):
    runs = recordings(tmp_path, good="ok", broken="fail")
    assert reprocess(runs, tmp_path / "out") == 1
    Path(runs[1]).write_text("ok")
    assert reprocess(runs, tmp_path / "out") == 0
    assert [run["state"] for run in results(tmp_path / "out")] == ["skipped", "finished"]
    assert results(tmp_path / "out")[0]["keyframes"] == 7
    assert (asked(runs[0]), asked(runs[1])) == (1, 2)
    assert reprocess(runs, tmp_path / "out", "--again") == 0
    assert (asked(runs[0]), asked(runs[1])) == (2, 3)


@pytest.mark.usefixtures("stand_in")
def test_one_that_takes_too_long_is_ended(tmp_path):
    runs = recordings(tmp_path, endless="hang", good="ok")
    assert reprocess(runs, tmp_path / "out", "--workers", "2", "--timeout", "2") == 1
    endless, good = results(tmp_path / "out")
    assert "longer than 2 s" in endless["problem"]
    assert not processes_with(runs[0])
    assert good["state"] == "finished"


@pytest.mark.usefixtures("stand_in")
def test_runs_beside_each_other_have_dds_domains_of_their_own(tmp_path):
    runs = recordings(tmp_path, a="slow", b="slow", c="slow")
    assert reprocess(runs, tmp_path / "out", "--workers", "3") == 0
    domains = [Path(run).with_suffix(".asked").read_text() for run in runs]
    assert len(set(domains)) == 3


@pytest.mark.usefixtures("stand_in")
def test_consumers_of_the_live_system_hear_nothing_of_recordings(tmp_path, monkeypatch):
    monkeypatch.setenv("RABBITMQ_URL", "amqp://localhost")
    (run,) = recordings(tmp_path, good="ok")
    assert reprocess([run], tmp_path / "out") == 0
    assert Path(run).with_suffix(".broker").read_text() == "none"


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_after_an_end_by_any_signal_the_same_command_goes_on_with_what_is_missing(how, tmp_path):
    runs = recordings(tmp_path, good="ok", cut="hang")
    out = tmp_path / "out"
    words = ["reprocess", *runs, "--out", str(out), "--ray", "no", "--workers", "2"]
    command = [sys.executable, "-c", DRIVER, STAND_IN, *words]
    first = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_until(lambda: (out / "good" / "reprocess.json").exists() and asked(runs[1]))
    wait_until(lambda: bool(list(out.glob(".part-*/half"))))
    first.send_signal(how)
    output, _ = first.communicate(timeout=30)
    assert first.returncode == (-9 if how is signal.SIGKILL else 1), output
    assert not (out / "cut").exists()
    wait_until(lambda: not processes_with(runs[1]))
    Path(runs[1]).write_text("ok")
    again = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert again.returncode == 0, again.stderr
    assert [run["state"] for run in results(out)] == ["skipped", "finished"]
    assert (asked(runs[0]), asked(runs[1])) == (1, 2)
    assert not list(out.glob(".part-*"))


@pytest.mark.usefixtures("stand_in")
def test_results_of_other_settings_or_strange_folders_are_never_overwritten(tmp_path, capsys):
    runs = recordings(tmp_path, good="ok")
    out = tmp_path / "out"
    assert reprocess(runs, out) == 0
    assert reprocess(runs, out, "--set", "mesher.voxel=0.1") == 2
    assert "of other settings; choose another --out" in capsys.readouterr().err
    (out / "mine").mkdir()
    (out / "mine" / "thesis.txt").write_text("years of work")
    assert reprocess(recordings(tmp_path, mine="ok"), out, "--again") == 2
    assert "in the way" in capsys.readouterr().err
    assert (out / "mine" / "thesis.txt").exists()


@pytest.mark.usefixtures("stand_in")
@pytest.mark.parametrize("refused", ["the GPUs", "a folder"])
def test_again_leaves_every_result_until_it_is_known_that_all_can_be_made_again(tmp_path, refused):
    runs, out, words = recordings(tmp_path, good="ok"), tmp_path / "out", ["--again"]
    assert reprocess(runs, out) == 0
    (out / "good" / "mesh.ply").write_text("hours of work")
    if refused == "the GPUs":
        words += ["--gpus", "1"]
    else:
        (out / "mine").mkdir()
        runs += recordings(tmp_path, mine="ok")
    assert reprocess(runs, out, *words) == 2
    assert (out / "good" / "mesh.ply").read_text() == "hours of work"
    assert (out / "good" / "reprocess.json").exists()
    assert asked(runs[0]) == 1


@pytest.mark.usefixtures("stand_in")
def test_again_replaces_an_earlier_result_only_by_a_whole_one(tmp_path):
    (run,), out = recordings(tmp_path, good="ok"), tmp_path / "out"
    assert reprocess([run], out) == 0
    (out / "good" / "earlier").touch()
    Path(run).write_text("fail")
    assert reprocess([run], out, "--again") == 1
    assert (out / "good" / "earlier").exists()
    (failed,) = results(out)
    assert (failed["state"], failed["figures"]) == ("failed", {}), "figures are of the earlier run"
    Path(run).write_text("ok")
    assert reprocess([run], out, "--again") == 0
    assert {path.name for path in (out / "good").iterdir()} == {
        "half",
        "summary.json",
        "reprocess.json",
    }
    assert not list(out.glob(".part-*"))


@pytest.mark.usefixtures("stand_in")
def test_other_settings_have_another_folder_by_themselves(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (run,) = recordings(tmp_path, good="ok")
    assert main(["reprocess", run, "--ray", "no"]) == 0
    assert main(["reprocess", run, "--ray", "no", "--set", "mesher.voxel=0.1"]) == 0
    assert len(list((tmp_path / "runs").glob("reprocessed_*/good/summary.json"))) == 2


def test_wrong_use_is_told_before_anything_runs(tmp_path, capsys):
    (run,) = recordings(tmp_path, good="ok")
    for words, answer in (
        ([str(tmp_path / "none")], "does not exist"),
        ([run, "--set", "voxel"], "not of the form node.name=value"),
        ([run, "--cpus", "0"], "must be positive"),
    ):
        assert main(["reprocess", *words, "--out", str(tmp_path / "out")]) == 2
        assert answer in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_second_one_in_the_same_folder_is_refused(tmp_path, capsys):
    with task_module.sole_use(tmp_path / "out"):
        assert reprocess(recordings(tmp_path, good="ok"), tmp_path / "out") == 2
    assert "another reprocess works in" in capsys.readouterr().err


def test_a_runs_folder_stands_for_its_bag_else_its_video_and_brings_its_truth(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name / "video" / "x").mkdir(parents=True)
        (tmp_path / name / "video" / "x" / "video.mp4").touch()
    (tmp_path / "one" / "bag").mkdir()
    (tmp_path / "one" / "bag" / "metadata.yaml").touch()
    (tmp_path / "two" / "truth").mkdir()
    bag = tmp_path / "one" / "bag"
    tasks = plan([tmp_path / "one", tmp_path / "two", bag], tmp_path / "out", Settings())
    assert [task.name for task in tasks] == ["one", "two", "one_2"]
    assert tasks[0].recording == tasks[2].recording == str(bag)
    assert tasks[1].recording.endswith("video.mp4")
    assert tasks[1].truth.endswith("truth")
    with pytest.raises(ReprocessError, match="no runs"):
        plan([], tmp_path, Settings())


def test_a_run_without_a_bag_whose_video_is_in_parts_is_refused_with_their_names(tmp_path):
    session = tmp_path / "run" / "video" / "x"
    session.mkdir(parents=True)
    for name in ("video.mp4", "video_2.mp4"):
        (session / name).touch()
    with pytest.raises(ReprocessError, match=r"video/x/video\.mp4, video/x/video_2\.mp4"):
        plan([tmp_path / "run"], tmp_path / "out", Settings())
    (task,) = plan([session / "video_2.mp4"], tmp_path / "out", Settings())
    assert task.recording == str(session / "video_2.mp4")


def test_a_task_survives_the_way_to_another_machine(tmp_path):
    (run,) = recordings(tmp_path, good="ok")
    (task,) = plan([Path(run)], tmp_path, Settings(("--set", "a.b=1"), 5.0))
    assert task_from_json(task_to_json(task)) == task


def test_two_claims_never_get_the_same_domain():
    with claimed_domain() as first, claimed_domain() as second:
        assert first != second
        assert 0 < first <= 101


def test_a_task_keeps_out_of_the_domains_of_runs_and_sources_whoever_has_them(monkeypatch):
    monkeypatch.setattr(task_module, "_DOMAINS", range(910, 913))
    with claim(910), mark(911), claimed_domain() as domain:
        assert domain == 912
        with pytest.raises(ReprocessError, match="fewer --workers"), claimed_domain():
            pass
    with claimed_domain() as domain:
        assert domain == 910


def test_without_ray_processes_of_our_own_run_and_asking_for_ray_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr("worldsystem.reprocess.pool.find_spec", lambda name: None)
    assert chosen_pool("", "auto") is on_this_machine
    for address, ray in (("", "yes"), ("head:6379", "auto")):
        with pytest.raises(ReprocessError, match=r"requirements-reprocess\.txt"):
            chosen_pool(address, ray)


def wait_until(holds: Callable[[], object], timeout_s: float = 30.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, f"nothing after {timeout_s} s"
        time.sleep(0.05)


def processes_with(word: str) -> list[str]:
    """Process ids of stand-ins whose command line holds `word`, not of who began them."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        if word in words and "reprocess" not in words:
            found.append(path.parent.name)
    return found


def film(path: Path) -> None:
    """A second of drifting noise, enough for a run to have a beginning and an end."""
    picture = np.random.default_rng(0).integers(0, 256, (96, 300, 3), dtype=np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = 160, 96, "yuv420p"
        for number in range(30):
            shown = np.ascontiguousarray(picture[:, 3 * number : 3 * number + 160])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(shown, format="rgb24")))
        container.mux(stream.encode())


@pytest.mark.ros
@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("ray", ["no", "yes"])
def test_recordings_go_through_the_real_pipeline(ray, tmp_path):
    pytest.importorskip("rclpy", reason="ROS is not set up: run this through `make test`")
    if ray == "yes" and find_spec("ray") is None:
        pytest.skip("Ray is not installed")
    film(tmp_path / "one.mp4")
    film(tmp_path / "two.mp4")
    (tmp_path / "text.mp4").write_text("hello")
    names = [str(tmp_path / f"{name}.mp4") for name in ("one", "text", "two")]
    words = ["reprocess", *names, "--out", str(tmp_path / "out"), "--ray", ray, "--cpus", "1"]
    words += ["--workers", "2", "--set", "ingest.frame_step=2"]
    done = subprocess.run(
        [sys.executable, "-m", "worldsystem.cli", *words],
        capture_output=True,
        text=True,
        timeout=550,
        env=os.environ | {"ROS_DOMAIN_ID": "7"},
    )
    assert done.returncode == 1, textwrap.indent(done.stdout + done.stderr, "  ")
    one, text, two = results(tmp_path / "out")
    assert (one["state"], two["state"]) == ("finished", "finished")
    assert "is not a video" in text["problem"]
    for name in ("one", "two"):
        summary = json.loads((tmp_path / "out" / name / "summary.json").read_text())
        assert summary["ledger"][0]["used"] == 15


def test_a_run_that_fits_no_machine_is_refused_here_and_waits_for_one_in_a_cluster(caplog):
    machines = [{"CPU": 8.0}, {"CPU": 2.0, "GPU": 1.0}]
    check_that_one_fits(Room(1, cpus=2.0, gpus=0.5), machines)
    check_that_one_fits(Room(1, cpus=8.0), machines)
    with pytest.raises(ReprocessError, match="4 cores and 1 GPUs"):
        check_that_one_fits(Room(1, cpus=4.0, gpus=1.0), machines)
    check_that_one_fits(Room(1, cpus=4.0, gpus=1.0, address="auto"), machines)
    assert "until one joins" in caplog.text


@pytest.mark.parametrize("gpus", ["1", "1.5"])
def test_gpus_that_nobody_shares_out_are_refused(tmp_path, stand_in, gpus, capsys):
    runs = recordings(tmp_path, one="fine")
    assert reprocess(runs, tmp_path / "out", "--gpus", gpus) != 0
    assert "--gpus" in capsys.readouterr().err
    assert not (tmp_path / "one.asked").exists()
