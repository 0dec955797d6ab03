# SPDX-License-Identifier: Apache-2.0
"""Data sets that other people made by the layouts of EuRoC, KITTI and TUM."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from rosbags.highlevel import AnyReader

from worldsystem_storage.errors import StorageError
from worldsystem_storage.importing.sources import import_path


def save(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.full((60, 80, 3), 90, np.uint8))


def messages(bag: Path) -> dict[str, list]:
    found: dict[str, list] = {}
    with AnyReader([bag]) as reader:
        for connection, stamp, raw in reader.messages():
            message = reader.deserialize(raw, connection.msgtype)
            found.setdefault(connection.topic, []).append((stamp, message))
    return found


def euroc(folder: Path, stamps: list[int], model: str = "radial-tangential") -> Path:
    """A sequence with a picture, a true pose and an inertial sample at each stamp."""
    root = folder / "flight" / "mav0"
    for stamp in stamps:
        save(root / f"cam0/data/{stamp}.png")
    (root / "cam0/sensor.yaml").write_text(
        "T_BS:\n  data: [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1]\n"
        "resolution: [80, 60]\nintrinsics: [60.0, 60.0, 40.0, 30.0]\n"
        f"distortion_model: {model}\ndistortion_coefficients: [-0.28, 0.07, 0.1, 0.2]\n"
    )
    rows = {
        "cam0": "{0},{0}.png",
        "imu0": "{0},0.1,0.2,0.3,9.81,0.5,0.25",
        "state_groundtruth_estimate0": "{0},1,2,3,1,0,0,0",
    }
    for name, row in rows.items():
        (root / name).mkdir(exist_ok=True)
        lines = [row.format(stamp) for stamp in stamps]
        (root / name / "data.csv").write_text("\n".join(["#timestamp [ns]", *lines]))
    return root.parent


def test_euroc_that_counts_from_zero_is_in_nanoseconds(tmp_path):
    stamps = [0, 50_000_000, 1_000_000_000, 12_000_000_000, 1_000_000_000_000]
    import_path(euroc(tmp_path, stamps), tmp_path / "bag")
    found = messages(tmp_path / "bag")
    for topic in ("/camera/image/compressed", "/truth/pose", "/imu/data"):
        assert [stamp for stamp, _ in found[topic]] == stamps


@pytest.mark.parametrize(
    ("model", "kept"),
    [("radial-tangential", [-0.28, 0.07, 0.1, 0.2]), ("equidistant", [0.0] * 5)],
)
def test_distortion_of_a_model_that_is_not_known_is_not_taken_for_another(
    tmp_path, monkeypatch, model, kept
):
    monkeypatch.setattr("worldsystem_core.distortion._told", set())  # others look for its warning
    import_path(euroc(tmp_path, [0, 50_000_000], model), tmp_path / "bag")
    _, told = messages(tmp_path / "bag")["/camera/camera_info"][0]
    assert list(told.d) == kept


def test_kitti_cut_to_its_first_pictures_keeps_the_poses_of_these(tmp_path):
    folder = tmp_path / "sequences" / "07"
    for number in range(2):
        save(folder / f"image_2/{number:06d}.png")
    (folder / "times.txt").write_text("0.000000e+00\n1.037875e-01\n")
    (folder / "calib.txt").write_text("P2: 60 0 30 0 0 60 10 0 0 0 1 0\n\n")
    (tmp_path / "poses").mkdir()
    np.savetxt(tmp_path / "poses" / "07.txt", np.tile(np.eye(4)[:3].ravel(), (5, 1)))
    counts = import_path(folder, tmp_path / "bag").messages
    assert (counts["/camera/image/compressed"], counts["/truth/pose"]) == (2, 2)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("state_groundtruth_estimate0/data.csv", "0,1,2"),
        ("imu0/data.csv", "0,0.1,0.2,none,9.81,0.5,0.25"),
        ("cam0/sensor.yaml", "resolution: [80, 60]\n"),
        ("cam0/sensor.yaml", "intrinsics:\n"),
    ],
)
def test_a_damaged_file_of_euroc_is_told_in_words(tmp_path, file, content):
    folder = euroc(tmp_path, [0, 50_000_000])
    (folder / "mav0" / file).write_text(content)
    with pytest.raises(StorageError, match="flight cannot be read as EuRoC MAV"):
        import_path(folder, tmp_path / "bag")


def test_a_damaged_path_of_tum_is_told_in_words(tmp_path):
    folder = tmp_path / "desk"
    save(folder / "0.png")
    (folder / "rgb.txt").write_text("1305031102.175304 0.png\n")
    (folder / "groundtruth.txt").write_text("1305031102.175304 1.0 2.0\n")
    with pytest.raises(StorageError, match="desk cannot be read as TUM RGB-D"):
        import_path(folder, tmp_path / "bag")


@pytest.mark.parametrize(
    ("here", "path"), [("sequences", "07"), ("sequences/07", "."), ("poses", "../sequences/07")]
)
def test_a_sequence_of_kitti_has_its_true_poses_wherever_it_is_named_from(
    tmp_path, monkeypatch, here, path
):
    folder = tmp_path / "sequences" / "07"
    save(folder / "image_2/000000.png")
    (folder / "times.txt").write_text("0.000000e+00\n")
    (folder / "calib.txt").write_text("P2: 60 0 30 0 0 60 10 0 0 0 1 0\n")
    (tmp_path / "poses").mkdir()
    np.savetxt(tmp_path / "poses" / "07.txt", np.eye(4)[:3].reshape(1, 12))
    monkeypatch.chdir(tmp_path / here)
    counts = import_path(Path(path), tmp_path / "bag").messages
    assert counts.get("/truth/pose") == 1
