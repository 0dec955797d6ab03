# SPDX-License-Identifier: Apache-2.0
"""Only files that were there when a version was pinned are installed."""

from __future__ import annotations

import importlib
import sys
import venv
import zipfile
from pathlib import Path

import pytest
from packaging.utils import canonicalize_name, parse_sdist_filename, parse_wheel_filename
from packaging.version import Version

TOOLS = Path(__file__).parents[2] / "tools"


@pytest.fixture
def tool(monkeypatch):
    monkeypatch.syspath_prepend(str(TOOLS))
    return importlib.import_module


@pytest.fixture
def downloads(tmp_path):
    folder = tmp_path / "downloads"
    folder.mkdir()
    (folder / "one-1.0-py3-none-any.whl").write_bytes(b"one")
    (folder / "two-2.0.tar.gz").write_bytes(b"two")
    return folder


def list_of(module, *files: Path) -> set[tuple[str, str]]:
    return module.listed("".join(f"{module.sha256(file)}  {file.name}\n" for file in files))


def test_files_of_the_list_pass(tool, downloads):
    module = tool("downloads")
    assert module.check_downloads(downloads, list_of(module, *downloads.iterdir()), []) == []


@pytest.mark.parametrize("change", ["other bytes", "another name"])
def test_a_file_that_is_not_on_the_list_is_named_and_refused(tool, downloads, change):
    module = tool("downloads")
    known = list_of(module, *downloads.iterdir())
    file = downloads / "two-2.0.tar.gz"
    if change == "other bytes":
        file.write_bytes(b"twq")
    else:
        file = file.rename(downloads / "twoo-2.0.tar.gz")
    with pytest.raises(module.UnlistedFile, match=f"{file.name}.*make lock"):
        module.check_downloads(downloads, known, [])


def test_a_file_of_the_machines_own_folder_passes_as_it_is_there(tool, downloads, tmp_path):
    module = tool("downloads")
    known = list_of(module, downloads / "two-2.0.tar.gz")
    own = tmp_path / "wheels of mine"
    own.mkdir()
    (own / "one-1.0-py3-none-any.whl").write_bytes(b"one")
    assert module.check_downloads(downloads, known, [own]) == ["one-1.0-py3-none-any.whl"]
    (own / "one-1.0-py3-none-any.whl").write_bytes(b"another one")
    with pytest.raises(module.UnlistedFile, match=r"one-1\.0"):
        module.check_downloads(downloads, known, [own])


def test_own_folders_are_those_that_pip_was_told_to_look_into(tool, tmp_path):
    folders = [tmp_path / name for name in ("a", "b", "c")]
    for folder in folders:
        folder.mkdir()
    told = (
        f"global.index-url='https://index.example/simple'\n"
        f"global.find-links='{folders[0]} https://links.example/ {tmp_path / 'missing'}'\n"
        f":env:.find-links='file://{folders[1]} {folders[0]}'\n"
        f"install.find-links='\\n{folders[2]}'\n"
    )
    assert tool("downloads").own_folders(told) == folders


def index_with(tmp_path: Path, name: str, content: str) -> Path:
    """A package index of one wheel, which is the second value's parent."""
    folder = tmp_path / "simple" / name
    folder.mkdir(parents=True)
    wheel = folder / f"{name}-1.0-py3-none-any.whl"
    info = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(f"{name}.py", content)
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        tag = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        archive.writestr(f"{info}/WHEEL", tag)
        archive.writestr(f"{info}/RECORD", "")
    (folder / "index.html").write_text(f'<a href="{wheel.name}">{wheel.name}</a>')
    return wheel


def test_the_set_up_installs_what_is_listed_and_nothing_else(tool, tmp_path, monkeypatch):
    """With pip itself and an index in a folder, where a wheel is exchanged under its name."""
    setup, module = tool("setup"), tool("downloads")
    wheel = index_with(tmp_path, "tinypackage", "VALUE = 1\n")
    for variable in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL", "PIP_CONSTRAINT"):
        monkeypatch.setenv(variable, "")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_INDEX_URL", f"file://{wheel.parent.parent}")
    texts = {"requirements": "tinypackage", "bare": "", "constraints": "tinypackage==1.0"}
    paths = {name: tmp_path / f"{name}.txt" for name in texts}
    for name, path in paths.items():
        path.write_text(texts[name])
    hashes = tmp_path / "hashes.txt"
    hashes.write_text(f"{module.sha256(wheel)}  {wheel.name}\n")
    environment = tmp_path / "venv"
    venv.EnvBuilder(with_pip=True, symlinks=True).create(environment)
    monkeypatch.setattr(setup, "VENV", environment)
    monkeypatch.setattr(setup, "LOG", tmp_path / "log")
    monkeypatch.setattr(setup, "HASHES", hashes)
    monkeypatch.setattr(setup, "CONSTRAINTS", paths["constraints"])
    monkeypatch.setattr(setup, "BARE_REQUIREMENTS", paths["bare"])
    monkeypatch.setattr(setup, "requirement_files", lambda ros: [paths["requirements"]])
    monkeypatch.setattr(setup, "repair_cmake_paths", lambda: None)

    setup.install_libraries("")
    [installed] = environment.glob("lib/python3*/site-packages/tinypackage.py")
    assert installed.read_text() == "VALUE = 1\n"

    installed.unlink()
    (wheel.parent / "index.html").unlink()
    wheel.unlink()
    wheel.parent.rmdir()
    index_with(tmp_path, "tinypackage", "VALUE = 2\n")
    with pytest.raises(setup.SetupError, match="tinypackage"):
        setup.install_libraries("")
    assert not installed.exists()
    assert not list(environment.glob("downloads-*"))


@pytest.mark.parametrize(
    ("name", "usable"),
    [
        ("numpy-2.4.6-cp311-cp311-manylinux_2_27_x86_64.manylinux_2_28_x86_64.whl", True),
        ("numpy-2.4.6-cp312-cp312-manylinux_2_28_aarch64.whl", True),
        ("numpy-2.4.6-py3-none-any.whl", True),
        ("numpy-2.4.6-cp38-abi3-manylinux2014_x86_64.whl", True),
        ("numpy-2.4.6.tar.gz", True),
        ("numpy-2.4.5-cp311-cp311-manylinux_2_28_x86_64.whl", False),
        ("numpy-2.4.6-cp310-cp310-manylinux_2_28_x86_64.whl", False),
        ("numpy-2.4.6-cp311-cp311-musllinux_1_2_x86_64.whl", False),
        ("numpy-2.4.6-cp311-cp311-win_amd64.whl", False),
        ("numpy-2.4.6-pp311-pypy311_pp73-manylinux_2_28_x86_64.whl", False),
        ("numpy-2.4.6.win32-py2.7.exe", False),
    ],
)
def test_files_for_our_pythons_on_linux_are_listed(tool, name, usable):
    assert tool("lock").is_usable(name, Version("2.4.6")) is usable


def test_every_pin_has_files_on_the_list(tool):
    pins = tool("lock").pinned((TOOLS / "constraints.txt").read_text())
    found = set()
    for name, _ in tool("downloads").listed((TOOLS / "hashes.txt").read_text()):
        parse = parse_wheel_filename if name.endswith(".whl") else parse_sdist_filename
        found.add(tuple(parse(name)[:2]))
    wanted = {(canonicalize_name(name), Version(version)) for name, version in pins.items()}
    assert found == wanted
    assert "torch" in pins
    assert sys.version_info[:2] <= (3, tool("lock").NEWEST_PYTHON)


@pytest.mark.parametrize("ros", ["", "jazzy"])
def test_pip_keeps_what_it_fetches_on_the_disk_of_the_checkout(tool, tmp_path, monkeypatch, ros):
    """/tmp may be memory, which has no room for gigabytes."""
    setup = tool("setup")
    python = tmp_path / ".venv/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\necho "${{TMPDIR-}}" >> "{tmp_path}/places"\n')
    python.chmod(0o755)
    monkeypatch.delenv("TMPDIR", raising=False)
    monkeypatch.setattr(setup, "VENV", tmp_path / ".venv")
    monkeypatch.setattr(setup, "LOG", tmp_path / "log")
    monkeypatch.setattr(setup, "repair_cmake_paths", lambda: None)
    setup.install_libraries(ros)
    places = set((tmp_path / "places").read_text().splitlines())
    assert places == {str(tmp_path / ".venv")}
