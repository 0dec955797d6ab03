# SPDX-License-Identifier: Apache-2.0
"""Where an export goes, and under which name."""

from __future__ import annotations

import numpy as np
import pytest

from worldsystem.cli import main
from worldsystem_core.surface import Mesh
from worldsystem_storage.mesh_files import write_ply


@pytest.mark.parametrize("more", [[], ["--faces", "100"]])
def test_a_surface_is_not_written_under_the_name_of_another_format(tmp_path, capsys, more):
    mesh = Mesh(
        vertices=np.eye(3, dtype=np.float32),
        colours=np.full((3, 3), 9, np.uint8),
        faces=np.array([[0, 1, 2]], np.int32),
    )
    write_ply(tmp_path / "mesh.ply", mesh)
    out = tmp_path / "house.obj"
    assert main(["export", str(tmp_path), "--to", "glb", "--out", str(out), *more]) == 2
    assert "house.obj is to be glb" in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize("more", [[], ["--faces", "100"]])
def test_a_folder_that_is_there_may_have_a_dot_in_its_name(tmp_path, capsys, more):
    mesh = Mesh(
        vertices=np.eye(3, dtype=np.float32),
        colours=np.full((3, 3), 9, np.uint8),
        faces=np.array([[0, 1, 2]], np.int32),
    )
    write_ply(tmp_path / "mesh.ply", mesh)
    out = tmp_path / "site.v2"
    out.mkdir()
    assert main(["export", str(tmp_path), "--to", "glb", "--out", str(out), *more]) == 0
    assert (out / "mesh.glb").is_file()


@pytest.mark.parametrize(
    ("kind", "name", "ending"),
    [
        ("3dgs", "world.splat", "ply"),
        ("spz", "world.ply", "spz"),
        ("points", "world.las", "ply"),
        ("las", "world.laz", "las"),
    ],
)
def test_splats_and_points_are_not_written_under_the_name_of_another_format(
    tmp_path, capsys, kind, name, ending
):
    out = tmp_path / name
    assert main(["export", str(tmp_path), "--to", kind, "--out", str(out)]) == 2
    assert f"{name} is to be {ending}" in capsys.readouterr().err
    assert not out.exists()
