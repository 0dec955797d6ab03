# SPDX-License-Identifier: Apache-2.0
"""What cannot be run everywhere is at least sound: compose, Dockerfiles, the systemd unit."""

from __future__ import annotations

import configparser
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import yaml

from worldsystem.cli import _choice, _parser
from worldsystem.graph import RAW_OUTSIDE_MAX_PX, STAGES, simulator_parameters
from worldsystem_core import mesh_normals
from worldsystem_core.config import config_from
from worldsystem_sim.config import SimConfig

ROOT = Path(__file__).resolve().parents[2]
COMPOSE = yaml.safe_load((ROOT / "docker/compose.yaml").read_text())
SERVICES = COMPOSE["services"]
OURS = {name: s for name, s in SERVICES.items() if str(s["image"]).startswith("worldsystem:")}
ON_A_GPU = yaml.safe_load((ROOT / "docker/compose.cuda.yaml").read_text())["services"]
COMPUTING = {"simulator", "slam3r", "mesh", "segment"}
DOCKERFILES = ("Dockerfile", "Dockerfile.cuda", "Dockerfile.jazzy")
WANTED_PROFILES = {
    "ingest", "slam3r", "mesh", "segment", "storage", "viewer", "mediamtx", "prometheus",
    "grafana", "rabbitmq",
}  # fmt: skip


def environment_of(dockerfile: str) -> dict[str, str]:
    """What the image sets."""
    text = (ROOT / "docker" / dockerfile).read_text().replace("\\\n", " ")
    lines = [line.removeprefix("ENV ") for line in text.splitlines() if line.startswith("ENV ")]
    return dict(word.split("=", 1) for line in lines for word in line.split())


def test_every_part_has_a_profile() -> None:
    profiles = {profile for service in SERVICES.values() for profile in service["profiles"]}
    assert profiles >= WANTED_PROFILES


@pytest.mark.parametrize("name", sorted(OURS))
def test_a_container_of_ours_has_no_root_and_no_writable_root(name: str) -> None:
    service = OURS[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert not str(service["user"]).startswith("0")
    assert "no-new-privileges:true" in service["security_opt"]
    assert service["healthcheck"]["test"][0] == "CMD"


@pytest.mark.parametrize("name", sorted(OURS))
def test_a_container_of_ours_may_write_its_home(name: str) -> None:
    (home,) = {environment_of(dockerfile)["HOME"] for dockerfile in DOCKERFILES}
    mounts = [str(volume).split(":") for volume in OURS[name]["volumes"]]
    (source,) = [mount[0] for mount in mounts if mount[1:] == [home]]
    assert source in COMPOSE["volumes"], "a folder of the host would hide what the image has there"
    assert "HOME" not in OURS[name]["environment"]


@pytest.mark.parametrize("name", sorted(OURS))
def test_a_container_runs_a_command_that_there_is(name: str) -> None:
    command = [str(word) for word in OURS[name]["command"]]
    options = _parser().parse_args(command)
    assert callable(options.command)


def test_the_built_in_drone_need_not_render_for_long_before_it_flies() -> None:
    command = [str(word) for word in OURS["simulator"]["command"]]
    choice = _choice(_parser().parse_args(command))
    flown = config_from(SimConfig, simulator_parameters(choice))
    assert flown.duration_s <= 120.0, "all of it is rendered before the first picture is sent"
    assert flown.loop
    assert choice.duration_s > flown.duration_s, "the run would end with the first round"


def test_every_node_but_the_reporter_has_a_container() -> None:
    commands = [service["command"] for service in OURS.values()]
    nodes = {command[1] for command in commands if command[0] == "node"}
    assert nodes == {stage.name for stage in STAGES} - {"reporter"}


def test_the_map_and_its_objects_are_saved_in_one_folder() -> None:
    folders = [
        [word for word in SERVICES[name]["command"] if word.startswith("map_folder:=")]
        for name in ("slam3r", "segment")
    ]
    assert folders[0] == folders[1] != []


def test_pictures_of_every_size_reach_the_other_containers() -> None:
    assert f"raw_outside_max_px:={RAW_OUTSIDE_MAX_PX}" in OURS["ingest"]["command"]


@pytest.mark.parametrize("name", sorted(OURS))
def test_a_parameter_that_a_container_sets_is_known(name: str) -> None:
    page = (ROOT / "docs/parameters.md").read_text()
    command = OURS[name]["command"]
    for word in command:
        if ":=" in str(word):
            section = page.split(f"\n## {command[1]}\n")[1].split("\n## ")[0]
            assert f"| `{word.split(':=')[0]}` |" in section


@pytest.mark.parametrize("name", sorted(OURS))
def test_no_parameter_of_a_container_is_empty_when_its_variable_is_not_set(name: str) -> None:
    for word in map(str, OURS[name]["command"]):
        if ":=" in word:
            value = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", word.split(":=")[1])
            assert value, f"ROS refuses {word} without a value; put it in quotes"
            assert isinstance(yaml.safe_load(value), str | bool | int | float), word


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_what_is_mounted_exists(name: str) -> None:
    for volume in SERVICES[name].get("volumes", []):
        source = str(volume).split(":")[0]
        if source.startswith("../"):
            assert (ROOT / "docker" / source).exists(), volume
        elif not source.startswith("${"):
            assert source in COMPOSE["volumes"]


def test_on_a_gpu_all_of_ours_have_its_image_and_those_that_compute_have_the_gpu() -> None:
    assert ON_A_GPU.keys() == OURS.keys()
    for name, service in ON_A_GPU.items():
        assert service["image"] != OURS[name]["image"], "one would be built under the other's name"
        assert service["build"] == {"context": "..", "dockerfile": "docker/Dockerfile.cuda"}
    handed_on = {name for name, service in ON_A_GPU.items() if "deploy" in service}
    assert handed_on == COMPUTING
    for name in COMPUTING:
        (device,) = ON_A_GPU[name]["deploy"]["resources"]["reservations"]["devices"]
        assert device == {"driver": "nvidia", "count": "all", "capabilities": ["gpu"]}


@pytest.mark.parametrize("name", sorted(set(SERVICES) - set(OURS)))
def test_what_others_made_is_pinned(name: str) -> None:
    assert re.fullmatch(r"[\w./-]+:v?\d[\w.-]*", SERVICES[name]["image"])


def test_what_others_made_listens_on_loopback_alone() -> None:
    others = {name: SERVICES[name] for name in set(SERVICES) - set(OURS)}
    assert set(others) == {"mediamtx", "rabbitmq", "prometheus", "grafana"}, "check the new one"
    mediamtx, rabbitmq = others["mediamtx"]["environment"], others["rabbitmq"]["environment"]
    assert mediamtx["MTX_RTSPADDRESS"].startswith("127.0.0.1:")
    assert {mediamtx[f"MTX_{name}"] for name in ("PROTOCOLS", "RTSPTRANSPORTS")} == {"tcp"}
    assert {mediamtx[f"MTX_{name}"] for name in ("RTMP", "HLS", "WEBRTC", "SRT")} == {"no"}
    assert rabbitmq["RABBITMQ_NODE_IP_ADDRESS"] == rabbitmq["ERL_EPMD_ADDRESS"] == "127.0.0.1"
    assert "{127,0,0,1}" in rabbitmq["RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS"]
    assert rabbitmq["RABBITMQ_NODENAME"].endswith("@localhost")
    assert rabbitmq["RABBITMQ_ENABLED_PLUGINS_FILE"] == "/etc/rabbitmq/none"
    assert "--web.listen-address=127.0.0.1:9091" in others["prometheus"]["command"]
    assert others["grafana"]["environment"]["GF_SERVER_HTTP_ADDR"] == "127.0.0.1"


@pytest.mark.parametrize("name", DOCKERFILES)
def test_an_image_is_left_as_another_user_and_checks_its_health(name: str) -> None:
    lines = (ROOT / "docker" / name).read_text().splitlines()
    users = [line.split()[1] for line in lines if line.startswith("USER ")]
    assert users
    assert users[-1].split(":")[0] not in ("0", "root")
    assert any(line.startswith("HEALTHCHECK") for line in lines)
    assert not any(re.match(r"FROM \S+:latest|FROM [^:]+$", line) for line in lines)


@pytest.mark.parametrize("name", DOCKERFILES)
def test_an_image_keeps_its_kernels_where_its_user_may_write(name: str) -> None:
    text, environment = (ROOT / "docker" / name).read_text(), environment_of(name)
    assert Path(environment["NUMBA_CACHE_DIR"]).is_relative_to(environment["HOME"])
    setting_up = re.compile(r"^RUN (?:source \S+ \\\n +&& )?make setup && (.*)$", re.MULTILINE)
    (made,) = setting_up.finditer(text)
    assert text.index("NUMBA_CACHE_DIR=") < made.start(), "else they lie elsewhere"
    assert environment["HOME"] == "/opt/worldsystem/home"
    user = re.findall(r"^USER (\S+)$", text, flags=re.MULTILINE)[-1]
    assert f"chown -R {user} runs home" in made[1]


@pytest.mark.parametrize("name", DOCKERFILES)
def test_kernels_can_be_imported_where_the_code_cannot_be_written(
    name: str, tmp_path: Path
) -> None:
    """Numba wants a place for what it compiles when it sees the function, not when it is called."""
    shutil.copy(mesh_normals.__file__, tmp_path / "kernels.py")
    (tmp_path / "__pycache__").touch()  # where it keeps them beside the code; a bar for root, too
    environment = {key: value for key, value in os.environ.items() if key != "NUMBA_CACHE_DIR"}
    environment |= {"HOME": os.devnull, "XDG_CACHE_HOME": os.devnull}

    def imported(**further: str) -> bool:
        done = subprocess.run(
            [sys.executable, "-c", "import kernels"],
            cwd=tmp_path,
            env=environment | further,
            capture_output=True,
        )
        return done.returncode == 0

    assert not imported(), "nothing can be kept, so the test would not notice"
    kept = environment_of(name)["NUMBA_CACHE_DIR"].replace("/opt", str(tmp_path), 1)
    assert imported(NUMBA_CACHE_DIR=kept)


def test_the_unit_runs_without_root_in_a_sandbox_and_ends_in_order() -> None:
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(ROOT / "docker/worldsystem.service")
    service = unit["Service"]
    assert service["User"] == "worldsystem"
    assert service["KillSignal"] == "SIGINT"
    assert service["KillMode"] == "mixed", "stages apart are ended by the first process, in order"
    assert (service["NoNewPrivileges"], service["ProtectSystem"]) == ("yes", "strict")
    cache = f"/var/cache/{service['CacheDirectory']}"
    assert f"HOME={cache}" in service["Environment"].split(), "kernels are kept below it"
    words = service["ExecStart"].split()
    assert (ROOT / words[0].removeprefix("/opt/worldsystem/")).exists()
    assert callable(_parser().parse_args(words[2:4]).command)


def test_a_proxy_of_the_host_is_not_asked_how_the_container_is(monkeypatch) -> None:
    class Well(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    spec = importlib.util.spec_from_file_location("healthy", ROOT / "docker/healthy.py")
    assert spec is not None
    assert spec.loader is not None
    healthy = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(healthy)
    with HTTPServer(("127.0.0.1", 0), Well) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        assert healthy.main([f"http://127.0.0.1:{server.server_port}/health"]) == 0


@pytest.mark.parametrize("profile", ["prometheus", "grafana", "mediamtx"])
def test_what_is_started_beside_any_run_brings_no_second_stage_of_it(profile: str) -> None:
    beside = [name for name, service in OURS.items() if profile in service["profiles"]]
    assert not beside, "the simulator has that stage already, under the same name and port"


def test_a_process_killed_for_want_of_memory_does_not_end_the_service() -> None:
    """By default systemd then stops all the others, and nobody is left to begin it anew."""
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(ROOT / "docker/worldsystem.service")
    assert unit["Service"].get("OOMPolicy") == "continue"


def test_the_bridge_can_be_had_without_a_broker_of_ours() -> None:
    """Who moves here has a broker, which may hold the port that ours would take."""
    bridge = SERVICES["bridge"]
    assert set(bridge["profiles"]) == {"rabbitmq", "bridge"}
    assert "depends_on" not in bridge
    assert [name for name, s in SERVICES.items() if "bridge" in s["profiles"]] == ["bridge"]


def test_a_recording_of_containers_is_replayed_into_a_folder_that_its_user_may_make() -> None:
    page = (ROOT / "docs/deploy.md").read_text(encoding="utf-8")
    (command,) = re.findall(r"`worldsystem (replay runs/<date_time>[^`]*)`", page)
    options = _parser().parse_args(command.split())
    assert options.out is not None, "runs/ belongs to the containers' user"
    assert options.out.parts[0] != "runs"


def test_ingest_is_asked_for_its_health_where_it_listens() -> None:
    (host,) = [word for word in SERVICES["ingest"]["command"] if word.startswith("host:=")]
    asked = SERVICES["ingest"]["healthcheck"]["test"][-1]
    assert asked == f"http://{host.removeprefix('host:=')}:5001/health"
