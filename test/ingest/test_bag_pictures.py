# SPDX-License-Identifier: Apache-2.0
"""How the pictures of a bag are coded: raw in any layout, compressed, or as video."""

from __future__ import annotations

import threading
from fractions import Fraction
from pathlib import Path

import av
import bag_lab
import cv2
import numpy as np
import pytest
from bag_lab import START_NS, pictures, stamp_of, write_ros2
from ingest_lab import HEIGHT, WIDTH, MemorySink, encode, number_in, numbered_picture

from worldsystem_core.errors import SourceError
from worldsystem_ingest.bag import BagSource
from worldsystem_ingest.config import IngestConfig
from worldsystem_ingest.sink import Summary


def played(path: Path, **settings) -> tuple[MemorySink, Summary]:
    sink = MemorySink()
    return sink, BagSource(path, IngestConfig(**settings)).run(sink, threading.Event())


def numbers(sink: MemorySink) -> list[int]:
    return [number_in(frame.rgb) for frame in sink.frames]


RGB = np.random.default_rng(1).integers(0, 255, (8, 12, 3), np.uint8)
COLOUR = np.broadcast_to(np.array([200, 90, 30], np.uint8), (16, 16, 3))


@pytest.mark.parametrize(
    ("encoding", "pixels", "truth"),
    [
        ("rgb8", RGB, RGB),
        ("bgr8", RGB[..., ::-1], RGB),
        ("8UC3", RGB[..., ::-1], RGB),
        ("rgba8", np.dstack([RGB, RGB[..., 0]]), RGB),
        ("bgra8", np.dstack([RGB[..., ::-1], RGB[..., 0]]), RGB),
        ("mono8", RGB[..., 0], np.repeat(RGB[..., :1], 3, axis=2)),
    ],
)
@pytest.mark.parametrize("pad", [0, 5])
def test_an_encoding_is_turned_into_rgb(tmp_path, encoding, pixels, truth, pad):
    message = bag_lab.image(pixels, encoding, START_NS, pad=pad)
    bag = write_ros2(tmp_path / "run", [("/image", "sensor_msgs/msg/Image", START_NS, message)])
    sink, _ = played(bag)
    np.testing.assert_array_equal(sink.frames[0].rgb, truth)


@pytest.mark.parametrize("pattern", ["rggb", "bggr", "gbrg", "grbg"])
def test_a_bayer_mosaic_of_one_colour_becomes_that_colour(tmp_path, pattern):
    mosaic = np.zeros((16, 16), np.uint8)
    for at, letter in enumerate(pattern):
        channel = "rgb".index(letter)
        mosaic[at // 2 :: 2, at % 2 :: 2] = COLOUR[at // 2 :: 2, at % 2 :: 2, channel]
    message = bag_lab.image(mosaic, f"bayer_{pattern}8", START_NS)
    bag = write_ros2(tmp_path / "run", [("/image", "sensor_msgs/msg/Image", START_NS, message)])
    sink, _ = played(bag)
    np.testing.assert_array_equal(sink.frames[0].rgb, COLOUR)


@pytest.mark.parametrize(("encoding", "luma_at"), [("yuv422", 1), ("yuv422_yuy2", 0)])
def test_yuv_422_is_read_with_luma_in_its_place(tmp_path, encoding, luma_at):
    luma = np.tile(np.arange(40, 200, 10, np.uint8), (4, 1))
    pixels = np.full((4, 16, 2), 128, np.uint8)
    pixels[..., luma_at] = luma
    message = bag_lab.image(pixels, encoding, START_NS)
    bag = write_ros2(tmp_path / "run", [("/image", "sensor_msgs/msg/Image", START_NS, message)])
    sink, _ = played(bag)
    grey = np.clip((luma.astype(float) - 16) * 255 / 219, 0, 255)  # BT.601, video range
    np.testing.assert_allclose(sink.frames[0].rgb, np.repeat(grey[..., None], 3, 2), atol=1.5)


def test_pictures_on_their_side_have_the_camera_turned(tmp_path):
    upright = bag_lab.image(np.zeros((WIDTH, HEIGHT, 3), np.uint8), "rgb8", START_NS)
    info = bag_lab.camera_info(START_NS)
    messages = [
        ("/camera_info", "sensor_msgs/msg/CameraInfo", START_NS, info),
        ("/image", "sensor_msgs/msg/Image", START_NS, upright),
    ]
    sink, _ = played(write_ros2(tmp_path / "run", messages))
    camera = sink.frames[0].camera
    assert (camera.width, camera.height) == (HEIGHT, WIDTH)
    assert (camera.fx, camera.fy, camera.cx, camera.cy) == pytest.approx((151, 150, 48, 80))


def test_depth_is_refused_with_its_name(tmp_path):
    depth = bag_lab.image(np.zeros((4, 4), np.uint16), "16UC1", START_NS)
    bag = write_ros2(tmp_path / "run", [("/depth", "sensor_msgs/msg/Image", START_NS, depth)])
    for settings in ({}, {"topic": "/depth"}):
        with pytest.raises(SourceError, match=r"/depth .*its pixels are 16UC1; known: rgb8"):
            BagSource(bag, IngestConfig(**settings))


def test_depth_beside_colour_does_not_make_the_choice_unclear(tmp_path):
    depth = bag_lab.image(np.zeros((4, 4), np.uint16), "16UC1", START_NS)
    bag = write_ros2(
        tmp_path / "run", [("/depth", "sensor_msgs/msg/Image", START_NS, depth), *pictures(3)]
    )
    sink, _ = played(bag)
    assert numbers(sink) == [0, 1, 2]


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_compressed_images_are_decoded_and_a_broken_one_is_dropped(tmp_path, suffix):
    of = "sensor_msgs/msg/CompressedImage"
    messages = [
        ("/image/compressed", of, stamp_of(n), bag_lab.compressed(numbered_picture(n), 0, suffix))
        for n in range(5)
    ]
    whole = messages[2][3].data
    messages[2][3].data = whole[: len(whole) // 2]
    sink, _ = played(write_ros2(tmp_path / "run", messages))
    assert numbers(sink) == sink.ids == [0, 1, 3, 4]
    assert sink.drops == [(2, "corrupt")]


def test_a_header_that_claims_too_much_costs_that_picture_alone(tmp_path):
    of = "sensor_msgs/msg/CompressedImage"
    messages = [
        ("/image/compressed", of, stamp_of(n), bag_lab.compressed(numbered_picture(n), 0))
        for n in range(3)
    ]
    messages[1][3].data = np.frombuffer(b"P6 2000000 2 255\n" + bytes(100), np.uint8)
    sink, _ = played(write_ros2(tmp_path / "run", messages))
    assert numbers(sink) == sink.ids == [0, 2]
    assert sink.drops == [(1, "corrupt")]


@pytest.mark.parametrize("b_frames", [0, 2])
def test_h264_is_passed_through_and_decoded(tmp_path, b_frames):
    sink, summary = played(write_ros2(tmp_path / "run", bag_lab.video(25, b_frames=b_frames)))
    assert summary.frames == 25
    assert numbers(sink) == sink.ids == list(range(25))
    assert [frame.stamp_ns for frame in sink.frames] == [stamp_of(n) for n in range(25)]
    assert [u.data for u in sink.units] == [u.data for u in encode(25, b_frames=b_frames)]


@pytest.mark.parametrize("threads", [1, 4])
def test_no_picture_that_depends_on_a_message_that_cannot_be_read_is_shown(tmp_path, threads):
    messages = bag_lab.video(25)
    topic, of, at_ns, packet = messages[13]
    whole = bytes(bag_lab.ROS2.serialize_cdr(packet, of))
    messages[13] = (topic, of, at_ns, whole[:10])  # within its time stamp
    sink, _ = played(write_ros2(tmp_path / "run", messages), decode_threads=threads)
    assert numbers(sink) == sink.ids == [*range(13), *range(20, 25)]
    assert sink.drops == [(13, "corrupt"), *((at, "no_key_frame") for at in range(14, 20))]
    assert [frame.stamp_ns for frame in sink.frames] == [stamp_of(n) for n in sink.ids]


@pytest.mark.parametrize("encoding", ["h264", "libx264", "h264;yuv420p;bgr8;bgr8"])
def test_packets_of_ffmpeg_image_transport_play(tmp_path, encoding):
    sink, _ = played(write_ros2(tmp_path / "run", bag_lab.packets(12, encoding)))
    assert numbers(sink) == list(range(12))
    assert len(sink.units) == 12


def test_video_of_another_codec_is_refused_with_its_name(tmp_path):
    bag = write_ros2(tmp_path / "run", bag_lab.packets(2, "av1"))
    with pytest.raises(SourceError, match="its video is av1; known: h264, h265"):
        BagSource(bag, IngestConfig())


@pytest.mark.parametrize("told", ["rgb8; png compressed bgr8", "rgb8; png", "bgr8; png", "png"])
def test_a_png_keeps_its_colours_however_it_is_told(tmp_path, told):
    picture = cv2.resize(numbered_picture(5), (64, 48))
    of = "sensor_msgs/msg/CompressedImage"
    message = bag_lab.compressed(picture, START_NS)
    message.format = told
    sink, _ = played(write_ros2(tmp_path / "run", [("/image", of, START_NS, message)]))
    np.testing.assert_array_equal(sink.frames[0].rgb, picture)


def test_h265_is_passed_through_and_decoded(tmp_path):
    data = encode_h265(12)
    messages = [
        (
            "/video",
            bag_lab.VIDEO_TYPE,
            stamp_of(n),
            bag_lab.kind(bag_lab.VIDEO_TYPE)(
                bag_lab.stamp(stamp_of(n)), "camera", np.frombuffer(unit, np.uint8), "h265"
            ),
        )
        for n, unit in enumerate(data)
    ]
    sink, _ = played(write_ros2(tmp_path / "run", messages))
    assert [number_in(frame.rgb) for frame in sink.frames] == list(range(12))
    assert [unit.data for unit in sink.units] == data
    assert {unit.codec for unit in sink.units} == {"h265"}
    assert [frame.stamp_ns for frame in sink.frames] == [stamp_of(n) for n in range(12)]


def encode_h265(count: int) -> list[bytes]:
    """Numbered pictures as access units in the order in which they are shown."""
    context = av.CodecContext.create("libx265", "w")
    context.width, context.height, context.pix_fmt = WIDTH, HEIGHT, "yuv420p"
    context.time_base, context.framerate = Fraction(1, 30), Fraction(30)
    context.options = {
        "preset": "ultrafast",
        "x265-params": "keyint=6:bframes=0:repeat-headers=1:log-level=none:pools=1",
    }
    packets = []
    for number in range(count):
        picture = av.VideoFrame.from_ndarray(numbered_picture(number), format="rgb24")
        picture.pts = number
        packets += context.encode(picture)
    return [bytes(packet) for packet in [*packets, *context.encode(None)]]


def test_an_encoding_that_changes_to_depth_costs_those_pictures(tmp_path):
    of = "sensor_msgs/msg/Image"
    depth = bag_lab.image(np.zeros((4, 4), np.uint16), "16UC1", stamp_of(1))
    first, _, third = pictures(3, "/image")
    bag = write_ros2(tmp_path / "run", [first, ("/image", of, stamp_of(1), depth), third])
    sink, _ = played(bag)
    assert [number_in(frame.rgb) for frame in sink.frames] == [0, 2]
    assert sink.drops == [(1, "corrupt")]
