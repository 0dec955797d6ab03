# SPDX-License-Identifier: Apache-2.0
"""`worldsystem map` from the outside: what it says of sound, damaged and missing maps."""

from __future__ import annotations

import numpy as np
import pytest

from worldsystem.cli import main
from worldsystem_core.errors import ServiceError
from worldsystem_core.geometry.sim3 import Sim3
from worldsystem_core.reconstruction import ScaleState
from worldsystem_slam3r.graph.atlas import Atlas, Kept
from worldsystem_slam3r.maps.content import MapContent
from worldsystem_slam3r.maps.dense_memory import DenseMemory
from worldsystem_slam3r.scale.enu import EnuFrame


@pytest.fixture
def folder(tmp_path):
    atlas = Atlas()
    atlas.scale = ScaleState.METRIC
    atlas.place(0, Sim3.identity())
    for key in range(3):
        world = Sim3.identity()
        kept = Kept(
            id=key,
            frame_id=key,
            stamp_ns=key,
            submap=0,
            submap_from_cam=np.eye(4),
            world=world,
            told=world,
            first_unit=1.0,
            depth=1.0,
            stem=f"{key:06d}-test",
        )
        atlas.adopt(kept)
    MapContent.of(atlas, DenseMemory(0), EnuFrame(47.5, 8.25, 480.0)).save(
        tmp_path / "site", 10**18
    )
    return tmp_path / "site"


def test_info_says_what_a_map_holds(folder, capsys):
    assert main(["map", "info", str(folder)]) == 0
    told = capsys.readouterr().out
    assert "3  keyframes, 0 loops; metric" in told
    assert "47.5000000°" in told
    assert "all sound" in told


def test_info_on_a_damaged_map_names_the_file_and_fails(folder, capsys):
    graph = next(folder.glob("graph-*"))
    graph.write_bytes(graph.read_bytes()[:-7])
    assert main(["map", "info", str(folder)]) == 2
    told = capsys.readouterr().err
    assert graph.name in told
    assert "damaged" in told


def test_info_on_something_else_says_what_to_name(tmp_path, capsys):
    assert main(["map", "info", str(tmp_path)]) == 2
    assert "is not a map" in capsys.readouterr().err


@pytest.mark.ros
@pytest.mark.parametrize(
    ("service", "objects", "well"),
    [
        ("save_map", True, True),
        ("save_map", False, False),
        ("load_map", True, True),
        ("load_map", False, True),  # a map need not have objects
    ],
)
def test_a_map_is_saved_when_its_objects_are(monkeypatch, service, objects, well):
    from worldsystem import app

    def answer(kind, name, request, namespace):
        said = kind.Response(message=f"{name}, {request.path}")
        said.success = objects or name.startswith("slam3r")
        return said

    monkeypatch.setattr(app, "call_service", answer)
    assert app.ask_map_service(service, "site", "") == (
        well,
        f"slam3r/{service}, site; segment/{service.replace('map', 'objects')}, site",
    )


@pytest.mark.ros
@pytest.mark.parametrize(("service", "well"), [("save_map", False), ("load_map", True)])
def test_what_became_of_a_map_is_told_where_nobody_serves_objects(monkeypatch, service, well):
    from worldsystem import app

    def answer(kind, name, request, namespace):
        if name.startswith("segment"):
            raise ServiceError(f"nobody serves {name}")
        return kind.Response(success=True, message="3 keyframes")

    monkeypatch.setattr(app, "call_service", answer)
    done, told = app.ask_map_service(service, "site", "")
    assert done is well
    assert told.startswith("3 keyframes; not its objects: nobody serves segment/")


@pytest.mark.ros
@pytest.mark.parametrize(("well", "code"), [(True, 0), (False, 1)])
def test_a_map_is_begun_anew_without_the_command_ros2(monkeypatch, capsys, well, code):
    from worldsystem import app

    def answer(kind, name, request, namespace):
        assert (name, namespace) == ("slam3r/reset", "drone1")
        return kind.Response(success=well, message="what became of it")

    monkeypatch.setattr(app, "call_service", answer)
    assert main(["map", "reset", "--namespace", "drone1"]) == code
    assert capsys.readouterr().out == "what became of it\n"
