# SPDX-License-Identifier: Apache-2.0
"""The folder of a map: what is written comes back, damage is said, a crash loses nothing."""

from __future__ import annotations

import io
import json
import os
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from worldsystem_core.errors import MapError
from worldsystem_core.frames import Camera
from worldsystem_core.geometry.pinhole import pointmap_from_depth
from worldsystem_core.reconstruction import Keyframe
from worldsystem_slam3r.graph.atlas import Atlas
from worldsystem_slam3r.maps import keyframe_file
from worldsystem_slam3r.maps.autosave import MapSaver
from worldsystem_slam3r.maps.content import MapContent
from worldsystem_slam3r.maps.dense_memory import DenseMemory
from worldsystem_slam3r.maps.folder import (
    KEYFRAMES,
    MANIFEST,
    FileEntry,
    _checksum,
    is_map,
    read_file,
    read_manifest,
    write_map,
)
from worldsystem_slam3r.maps.keyframe_file import DensePart, decode_dense, encode_dense

CAMERA = Camera(width=32, height=24, fx=30.0, fy=30.0, cx=15.5, cy=11.5)


def keyframe(id: int, far: float = 4.0) -> Keyframe:
    depth = np.linspace(1.0, far, 24 * 32, dtype=np.float32).reshape(24, 32)
    depth[:3] = np.nan
    confidence = np.where(np.isfinite(depth), 0.6, 0.0).astype(np.float32)
    v, u = np.mgrid[:24, :32]
    return Keyframe(
        id=id,
        frame_id=id,
        stamp_ns=id,
        world_from_cam=np.eye(4),
        camera=CAMERA,
        pointmap=pointmap_from_depth(depth, CAMERA),
        confidence=confidence,
        rgb=np.stack([8 * u, 8 * v, 0 * u], axis=-1).astype(np.uint8),
    )


def two_files(text: bytes) -> list:
    return [("graph-1.npz", lambda: text), (f"{KEYFRAMES}/a.npz", lambda: b"keyframe")]


def test_what_is_written_is_read_back(tmp_path):
    folder = tmp_path / "map"
    write_map(folder, {"root": "scene"}, two_files(b"graph"), saved_ns=5)
    manifest = read_manifest(folder)
    assert (manifest.generation, manifest.saved_ns, manifest.facts["root"]) == (1, 5, "scene")
    assert read_file(folder, manifest.files["graph-1.npz"]) == b"graph"


def test_a_second_save_keeps_files_that_are_there_and_sweeps_the_rest(tmp_path):
    folder = tmp_path / "map"
    write_map(folder, {}, two_files(b"old"), saved_ns=1)

    def never() -> bytes:
        raise AssertionError("a file that is there must not be made again")

    contents = [("graph-2.npz", lambda: b"new"), (f"{KEYFRAMES}/a.npz", never)]
    manifest = write_map(folder, {}, contents, saved_ns=2)
    assert manifest.generation == 2
    assert not (folder / "graph-1.npz").exists()
    assert read_file(folder, manifest.files[f"{KEYFRAMES}/a.npz"]) == b"keyframe"


def test_what_memory_has_let_go_of_stays_where_it_was_saved(tmp_path):
    folder, name = tmp_path / "map", f"{KEYFRAMES}/a.npz"
    write_map(folder, {}, two_files(b"old"), saved_ns=1)
    contents = [("graph-2.npz", lambda: b"new"), (name, None), (f"{KEYFRAMES}/b.npz", None)]
    manifest = write_map(folder, {}, contents, saved_ns=2)
    assert read_file(folder, manifest.files[name]) == b"keyframe"
    assert set(manifest.files) == {"graph-2.npz", name}, "what never was is not named"


def test_a_save_that_breaks_off_leaves_the_old_map(tmp_path):
    folder = tmp_path / "map"
    write_map(folder, {}, two_files(b"old"), saved_ns=1)

    def killed() -> bytes:
        raise KeyboardInterrupt

    contents = [("graph-2.npz", lambda: b"new"), (f"{KEYFRAMES}/b.npz", killed)]
    with pytest.raises(KeyboardInterrupt):
        write_map(folder, {}, contents, saved_ns=2)
    manifest = read_manifest(folder)
    assert manifest.generation == 1
    assert all(read_file(folder, entry) for entry in manifest.files.values())


@pytest.mark.parametrize("name", ["graph-1.npz", f"{KEYFRAMES}/a.npz"])
@pytest.mark.parametrize("damage", ["cut", "flip", "gone"])
def test_a_damaged_file_is_named_with_what_to_do(tmp_path, name, damage):
    folder = tmp_path / "map"
    manifest = write_map(folder, {}, two_files(b"graph"), saved_ns=1)
    path = folder / name
    data = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(data[:-1] if damage == "cut" else bytes([data[0] ^ 1]) + data[1:])
    with pytest.raises(MapError, match=r"is damaged.*restore it from a copy"):
        read_file(folder, manifest.files[name])


def test_a_folder_that_cannot_be_made_is_told_and_tried_again(tmp_path):
    blocked = tmp_path / "disk"
    blocked.write_bytes(b"a file where a folder should be")
    content = MapContent.of(Atlas(), DenseMemory(0), None)
    saver = MapSaver(blocked / "map")
    saver.save(content, 1)
    deadline = time.monotonic() + 20.0
    while not saver.failure:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert "cannot be written" in saver.failure
    blocked.unlink()
    saver.save(content, 2)
    saver.close()
    assert (saver.saves, saver.failure) == (1, "")
    assert is_map(blocked / "map")


def test_two_saves_at_once_leave_a_whole_map(tmp_path):
    folder = tmp_path / "map"
    begun, go_on = threading.Event(), threading.Event()

    def slow() -> bytes:
        begun.set()
        assert go_on.wait(20.0)
        return b"slow"

    def save(stamp: int, content) -> None:
        parts = [(f"graph-{stamp}.npz", lambda: b"graph"), (f"{KEYFRAMES}/{stamp}.npz", content)]
        write_map(folder, {}, parts, saved_ns=stamp)

    first = threading.Thread(target=save, args=(1, slow))
    second = threading.Thread(target=save, args=(2, lambda: b"quick"))
    first.start()
    assert begun.wait(20.0)
    second.start()
    second.join(0.3)  # it would be through by now
    go_on.set()
    for each in (first, second):
        each.join(20.0)
        assert not each.is_alive()
    manifest = read_manifest(folder)
    assert manifest.generation == 2
    assert all(read_file(folder, entry) for entry in manifest.files.values())


def test_a_damaged_manifest_is_an_error_wherever_it_is_cut(tmp_path):
    folder = tmp_path / "map"
    write_map(folder, {"root": "scene"}, two_files(b"graph"), saved_ns=1)
    text = (folder / MANIFEST).read_text()
    for end in range(0, len(text) - 1, 37):
        (folder / MANIFEST).write_text(text[:end])
        with pytest.raises(MapError, match="damaged"):
            read_manifest(folder)


def test_a_changed_manifest_does_not_fit_its_checksum(tmp_path):
    folder = tmp_path / "map"
    write_map(folder, {"root": "scene"}, two_files(b"graph"), saved_ns=1)
    text = (folder / MANIFEST).read_text()
    (folder / MANIFEST).write_text(text.replace('"scene"', '"map"'))
    with pytest.raises(MapError, match="checksum does not fit"):
        read_manifest(folder)


def rewritten(folder: Path, **changes: object) -> None:
    body = json.loads((folder / MANIFEST).read_text()) | changes
    (folder / MANIFEST).write_text(json.dumps(body))


def test_another_version_or_kind_is_refused(tmp_path):
    folder = tmp_path / "map"
    write_map(folder, {}, two_files(b"graph"), saved_ns=1)
    rewritten(folder, version=2)
    with pytest.raises(MapError, match="has version 2, this program reads 1"):
        read_manifest(folder)
    rewritten(folder, format="recipe")
    with pytest.raises(MapError, match="'recipe'"):
        read_manifest(folder)


def test_a_folder_that_cannot_be_reached_is_refused(tmp_path):
    unreachable = tmp_path / (300 * "x")  # that no file system has
    with pytest.raises(MapError, match="name a folder that can be read"):
        read_manifest(unreachable)
    with pytest.raises(MapError, match="name a folder that can be"):
        write_map(unreachable, {}, two_files(b"graph"), saved_ns=1)


def test_a_folder_that_is_no_map_is_refused(tmp_path):
    with pytest.raises(MapError, match="is not a map"):
        read_manifest(tmp_path)
    (tmp_path / "holiday.jpg").write_bytes(b"x")
    with pytest.raises(MapError, match="holds other things"):
        write_map(tmp_path, {}, two_files(b"graph"), saved_ns=1)
    assert (tmp_path / "holiday.jpg").exists()


def test_a_manifest_cannot_name_files_outside(tmp_path):
    folder = tmp_path / "map"
    manifest = write_map(folder, {}, [("graph-1.npz", lambda: b"x")], saved_ns=1)
    (tmp_path / "secret").write_bytes(b"x")
    entry = manifest.files["graph-1.npz"]
    with pytest.raises(MapError, match="outside the map"):
        read_file(folder, type(entry)("../secret", entry.size, entry.sha256))


def test_a_dense_keyframe_survives_its_compression():
    before = keyframe(1)
    after = decode_dense(encode_dense(DensePart.of(before)), "here")
    known = before.confidence > 0
    ratio = after.depth[known] / before.pointmap[..., 2][known]
    assert np.abs(ratio - 1).max() < 2e-4
    assert np.isnan(after.depth[~known]).all()
    assert np.abs(after.confidence - before.confidence).max() <= 0.5 / 255 + 1e-6
    assert np.abs(after.rgb.astype(int) - before.rgb).mean() < 4
    assert after.camera == CAMERA


def test_a_keyframe_without_any_depth_survives_too():
    blind = DensePart(
        CAMERA,
        np.full((24, 32), np.nan, np.float32),
        np.zeros((24, 32), np.float32),
        np.zeros((24, 32, 3), np.uint8),
    )
    assert np.isnan(decode_dense(encode_dense(blind), "here").depth).all()


def test_bytes_that_are_no_keyframe_are_named():
    for data in (b"", b"nonsense", encode_dense(DensePart.of(keyframe(1)))[:200]):
        with pytest.raises(MapError, match="keyframe 7"):
            decode_dense(data, "keyframe 7")


def test_compressed_surfaces_stay_within_their_memory():
    memory = DenseMemory(budget_bytes=12_000)
    for key in range(40):
        memory.add(keyframe(key), 1.0)
    assert memory.size_bytes <= 12_000
    assert memory.let_go == 40 - len(memory)
    assert memory.packed(0) is None
    assert memory.packed(39) is not None
    none = DenseMemory(0)
    none.add(keyframe(1), 1.0)
    assert len(none) == 0


def test_objects_saved_first_into_the_folder_are_neither_refused_nor_swept(tmp_path):
    for name in ("objects.npz", ".objects.npz.new"):
        (tmp_path / name).write_bytes(b"of another stage")
    for stamp in (1, 2):
        write_map(tmp_path, {}, [(f"graph-{stamp}.npz", lambda: b"graph")], saved_ns=stamp)
    left = {path.name for path in tmp_path.iterdir() if path.is_file()}
    assert left == {"objects.npz", ".objects.npz.new", "graph-2.npz", "map.json"}


def test_a_map_of_a_stranger_takes_no_memory_and_ends_in_no_traceback(tmp_path, monkeypatch):
    folder = tmp_path / "map"
    write_map(folder, {}, two_files(b"graph"), saved_ns=1)
    (folder / "endless").symlink_to(os.devnull)  # /dev/zero would be read for ever without this
    with pytest.raises(MapError, match="endless is damaged: it is no file"):
        read_file(folder, FileEntry.of("endless", b""))
    (folder / MANIFEST).write_text("[]")
    with pytest.raises(MapError, match="damaged"):
        read_manifest(folder)
    body = {"format": "worldsystem-map", "version": 1, "files": [1]}
    (folder / MANIFEST).write_text(json.dumps(body | {"checksum": _checksum(body)}))
    with pytest.raises(MapError, match="damaged"):
        read_manifest(folder)
    plain = io.BytesIO()
    np.save(plain, np.zeros(3))
    with pytest.raises(MapError, match="keyframe 7"):
        decode_dense(plain.getvalue(), "keyframe 7")
    monkeypatch.setattr(keyframe_file, "_MOST_BYTES", 1000)
    with pytest.raises(MapError, match="unpacked it would have"):
        decode_dense(encode_dense(DensePart.of(keyframe(1))), "keyframe 7")
