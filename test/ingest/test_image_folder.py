# SPDX-License-Identifier: Apache-2.0
"""Folders of images as data sets lay them out: which images, in which order, stamped by what."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from ingest_lab import MemorySink, number_in, numbered_picture

from worldsystem_core.errors import SourceError
from worldsystem_ingest.config import IngestConfig
from worldsystem_ingest.files.image_folder import ImageFolder

SECOND = 10**9
BEGIN_NS = 1_403_636_579_763_555_584


def write_images(folder: Path, names: list[str]) -> Path:
    """Numbered pictures; a name without a suffix becomes a PNG."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names):
        bgr = cv2.cvtColor(numbered_picture(number), cv2.COLOR_RGB2BGR)
        cv2.imwrite(str(folder / f"{name}.png"), bgr)
    return folder


def played(folder: Path, **settings) -> list[tuple[int, int]]:
    """The number that each picture shows, with its stamp."""
    sink = MemorySink()
    ImageFolder(folder, IngestConfig(**settings)).run(sink, threading.Event())
    return [(number_in(frame.rgb), frame.stamp_ns) for frame in sink.frames]


def numbers_and_drops(folder: Path) -> tuple[list[int], list[tuple[int, str]]]:
    sink = MemorySink()
    ImageFolder(folder, IngestConfig()).run(sink, threading.Event())
    return [number_in(frame.rgb) for frame in sink.frames], sink.drops


@pytest.mark.parametrize(
    ("names", "stamps_ns"),
    [
        ([str(BEGIN_NS), str(BEGIN_NS + 50_000_000)], [BEGIN_NS, BEGIN_NS + 50_000_000]),
        (
            ["1305031102.175304", "1305031102.211214"],
            [1_305_031_102_175_304_000, 1_305_031_102_211_214_000],
        ),
        (
            ["1403636579763555", "1403636579813555"],
            [1_403_636_579_763_555_000, 1_403_636_579_813_555_000],
        ),
        (
            ["1403636579763", "1403636579813"],
            [1_403_636_579_763_000_000, 1_403_636_579_813_000_000],
        ),
    ],
)
def test_names_that_are_times_become_stamps(tmp_path, names, stamps_ns):
    assert played(write_images(tmp_path, names)) == list(enumerate(stamps_ns))


@pytest.mark.parametrize(
    "names",
    [
        ["0", "1", "2"],
        ["0000000001", "0000000002", "0000000003"],
        ["frame_1403636579763555584", "frame_1403636579813555584", "x"],
        [str(BEGIN_NS), "1", "2"],
    ],
)
def test_names_that_are_no_times_are_played_at_the_rate_of_the_settings(tmp_path, names):
    folder = write_images(tmp_path, names)
    assert sorted(stamp for _, stamp in played(folder, fps=10.0)) == [0, SECOND // 10, SECOND // 5]


@pytest.mark.parametrize("given", [".", "rgb"])
def test_a_list_of_tum_gives_order_and_stamps(tmp_path, given):
    write_images(tmp_path / "rgb", ["b", "a", "c"])
    (tmp_path / "rgb.txt").write_text(
        "# color images\n# timestamp filename\n"
        "1305031102.175304 rgb/a.png\n1305031102.211214 rgb/b.png\n1305031102.243211 rgb/c.png\n"
    )
    begin_ns = 1_305_031_102_000_000_000
    assert played(tmp_path / given) == [
        (1, begin_ns + 175_304_000),
        (0, begin_ns + 211_214_000),
        (2, begin_ns + 243_211_000),
    ]


@pytest.mark.parametrize("given", ["cam0", "cam0/data"])
def test_a_list_of_euroc_gives_stamps_to_the_nanosecond(tmp_path, given):
    names = [str(BEGIN_NS), str(BEGIN_NS + 49_999_872)]
    write_images(tmp_path / "cam0" / "data", names)
    lines = "\n".join(f"{name},{name}.png" for name in names)
    (tmp_path / "cam0" / "data.csv").write_text(f"#timestamp [ns],filename\n{lines}\n")
    assert played(tmp_path / given) == [(0, BEGIN_NS), (1, BEGIN_NS + 49_999_872)]


@pytest.mark.parametrize("begin_ns", [0, 999_999_999_950, 123_456_789_012_345])
def test_a_list_of_euroc_that_counts_from_zero_is_in_nanoseconds(tmp_path, begin_ns):
    """From zero, or from when the sensor was switched on."""
    write_images(tmp_path / "data", ["a", "b", "c"])
    stamps_ns = [begin_ns, begin_ns + 50, begin_ns + 50_000_000]
    lines = [f"{stamp},{name}.png" for stamp, name in zip(stamps_ns, "abc", strict=True)]
    (tmp_path / "data.csv").write_text("\n".join(lines))
    assert played(tmp_path) == list(enumerate(stamps_ns))


@pytest.mark.parametrize(
    ("stamps", "first_ns", "step_ns"),
    [
        (["123456789012345", "123456789012395"], 123_456_789_012_345, 50),
        (["1403636579763555", "1403636579763605"], 1_403_636_579_763_555_000, 50_000),
        (["1403636579763", "1403636579813"], 1_403_636_579_763_000_000, 50_000_000),
        ([str(BEGIN_NS), str(BEGIN_NS + 50)], BEGIN_NS, 50),
        (["7", "8"], 7 * SECOND, SECOND),
    ],
)
def test_stamps_of_a_list_may_count_in_any_unit_that_shows(tmp_path, stamps, first_ns, step_ns):
    folder = write_images(tmp_path, ["0", "1"])
    (folder / "times.txt").write_text("\n".join(stamps))
    assert played(folder) == [(0, first_ns), (1, first_ns + step_ns)]


@pytest.mark.parametrize("place", ["image_0/timestamps.txt", "times.txt"])
def test_one_stamp_a_line_belongs_to_one_image_each(tmp_path, place):
    folder = write_images(tmp_path / "image_0", ["000000", "000001", "000002"])
    (tmp_path / place).write_text("0.000000e+00\n1.036224e-01\n2.072949e-01\n")
    assert played(folder) == [(0, 0), (1, 103_622_400), (2, 207_294_900)]


def test_an_unreadable_image_moves_no_stamp_of_those_after_it(tmp_path):
    folder = write_images(tmp_path, [str(number) for number in range(10)])
    (folder / "times.txt").write_text("\n".join(f"{number / 100:.2f}" for number in range(10)))
    (folder / "5.png").write_bytes(b"no picture")
    whole = [number for number in range(10) if number != 5]
    assert played(folder, fps=10.0) == [(number, number * SECOND // 100) for number in whole]


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_an_image_that_was_cut_off_is_dropped_as_corrupt(tmp_path, suffix):
    for number in range(3):
        bgr = cv2.cvtColor(numbered_picture(number), cv2.COLOR_RGB2BGR)
        cv2.imwrite(str(tmp_path / f"{number}.{suffix}"), bgr)
    path = tmp_path / f"1.{suffix}"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert numbers_and_drops(tmp_path) == ([0, 2], [(1, "corrupt")])


def test_a_header_that_claims_too_much_costs_that_image_alone(tmp_path):
    write_images(tmp_path, ["0", "1", "2", "3"])
    (tmp_path / "1.png").rename(tmp_path / "1.ppm")
    (tmp_path / "1.ppm").write_bytes(b"P6 2000000 2 255\n" + bytes(100))
    (tmp_path / "2.png").write_bytes(b"")
    assert numbers_and_drops(tmp_path) == ([0, 3], [(1, "corrupt"), (2, "corrupt")])


def test_a_preview_in_a_jpeg_and_what_is_appended_to_it_are_not_its_end(tmp_path):
    bgr = cv2.cvtColor(numbered_picture(3), cv2.COLOR_RGB2BGR)
    jpeg = cv2.imencode(".jpg", bgr)[1].tobytes()
    preview = b"\xff\xe1" + (2 + len(jpeg)).to_bytes(2) + jpeg
    (tmp_path / "0.jpg").write_bytes(jpeg[:2] + preview + jpeg[2 : len(jpeg) // 2])
    (tmp_path / "1.jpg").write_bytes(jpeg[:2] + preview + jpeg[2:])
    (tmp_path / "2.jpg").write_bytes(jpeg + b"ftypmp42\xff\xda\xff\xd8\xff\xc0")
    assert numbers_and_drops(tmp_path) == ([3, 3], [(0, "corrupt")])


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("0.1\n0.2\n", "2 stamps for 3 images"),
        ("0.1\nhello\n0.3\n", "entry 2: 'hello' is no time"),
        ("0.1\nnan\n0.3\n", "entry 2: 'nan' is no time"),
        ("0.1\n-5\n0.3\n", "entry 2: '-5' is no time"),
        ("0\n9223372036854775808\n1\n", "entry 2: '9223372036854775808' is no time"),
    ],
)
def test_a_list_that_does_not_fit_is_an_error(tmp_path, text, what):
    folder = write_images(tmp_path, ["0", "1", "2"])
    (folder / "times.txt").write_text(text)
    with pytest.raises(SourceError, match=what):
        ImageFolder(folder, IngestConfig())


def test_a_list_that_names_missing_images_is_an_error(tmp_path):
    write_images(tmp_path / "rgb", ["0"])
    (tmp_path / "rgb.txt").write_text("1.0 rgb/0.png\n2.0 rgb/1.png\n")
    with pytest.raises(SourceError, match="names 2 images of which 1 are not there"):
        ImageFolder(tmp_path, IngestConfig())


def test_a_folder_of_folders_is_an_error_that_names_those_with_images(tmp_path):
    write_images(tmp_path / "left", ["0"])
    write_images(tmp_path / "right", ["0"])
    with pytest.raises(SourceError, match="in its folders left, right"):
        ImageFolder(tmp_path, IngestConfig())


def test_the_camera_beside_a_listed_folder_is_found(tmp_path):
    write_images(tmp_path / "rgb", ["0"])
    (tmp_path / "rgb.txt").write_text("1.0 rgb/0.png\n")
    np.savetxt(tmp_path / "K.txt", [[150, 0, 80], [0, 151, 48], [0, 0, 1]])
    sink = MemorySink()
    ImageFolder(tmp_path, IngestConfig()).run(sink, threading.Event())
    assert sink.frames[0].camera.fx == 150


def test_the_camera_beside_images_follows_their_size(tmp_path):
    bgr = cv2.cvtColor(numbered_picture(0), cv2.COLOR_RGB2BGR)
    for name, size in (("0", (160, 96)), ("1", (80, 48)), ("2", (96, 160))):
        cv2.imwrite(str(tmp_path / f"{name}.png"), cv2.resize(bgr, size))
    np.savetxt(tmp_path / "K.txt", [[150, 0, 80], [0, 151, 48], [0, 0, 1]])
    sink = MemorySink()
    ImageFolder(tmp_path, IngestConfig()).run(sink, threading.Event())
    full, half, turned = (frame.camera for frame in sink.frames)
    assert (full.fx, full.fy, full.cx, full.cy) == (150, 151, 80, 48)
    assert half == full.resized(80, 48)
    assert (half.width, half.height, half.fx, half.fy) == (80, 48, 75, 75.5)
    assert turned == full.turned()
    assert (turned.width, turned.height, turned.fx, turned.fy) == (96, 160, 151, 150)


def test_realtime_shifts_the_stamps_to_host_time(tmp_path):
    names = [str(BEGIN_NS + number * 100_000_000) for number in range(4)]
    folder, begin_ns = write_images(tmp_path, names), time.time_ns()
    stamps = [stamp for _, stamp in played(folder, realtime=True)]
    assert time.time_ns() - begin_ns >= 0.3 * SECOND
    assert begin_ns <= stamps[0] <= time.time_ns()
    assert np.diff(stamps).tolist() == [100_000_000] * 3


def test_facts_say_what_gave_the_stamps_and_how_far_it_is(tmp_path):
    source = ImageFolder(write_images(tmp_path, [str(BEGIN_NS)]), IngestConfig())
    assert source.facts()["position"] == "0 of 1 images"
    assert source.facts()["stamps from"] == "their names"
    source.run(MemorySink(), threading.Event())
    assert source.facts()["position"] == "1 of 1 images"


@pytest.mark.parametrize(
    ("colour", "depth"),
    [("frame-{:06}.color", "frame-{:06}.depth"), ("frame{:06}", "depth{:06}")],
)
def test_depth_pictures_beside_those_in_colour_are_left_out(tmp_path, caplog, colour, depth):
    write_images(tmp_path, [colour.format(number) for number in range(3)])
    for number in range(3):
        counts = np.full((96, 160), 1000, np.uint16)
        cv2.imwrite(str(tmp_path / f"{depth.format(number)}.png"), counts)
    assert played(tmp_path, fps=10.0) == [(n, n * SECOND // 10) for n in range(3)]
    assert "3 depth pictures" in caplog.text
