# SPDX-License-Identifier: Apache-2.0
"""Which source an address means, and what a person reads when it means none."""

from __future__ import annotations

import threading

import av
import cv2
import numpy as np
import pytest
from bag_lab import pictures, write_ros2
from ingest_lab import MemorySink, number_in, numbered_picture, write_video

from worldsystem_core.errors import SourceError
from worldsystem_ingest.bag import BagSource
from worldsystem_ingest.config import IngestConfig
from worldsystem_ingest.files.image_folder import ImageFolder
from worldsystem_ingest.files.video_file import VideoFile
from worldsystem_ingest.server import ServerSource
from worldsystem_ingest.source import open_source
from worldsystem_ingest.url.live_url import LiveUrl
from worldsystem_ingest.url.ws_client import WsClient


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("server:", ServerSource),
        ("server:127.0.0.1:7000", ServerSource),
        ("server://127.0.0.1:7000", ServerSource),
        ("webrtc:", ServerSource),
        ("ws://127.0.0.1:5001", WsClient),
        ("WSS://drone.example/ws/video/consume?token=x", WsClient),
        ("rtsp://127.0.0.1:8554/drone", LiveUrl),
        ("udp://127.0.0.1:1234", LiveUrl),
        ("https://127.0.0.1/live.m3u8", LiveUrl),
    ],
)
def test_the_scheme_chooses_the_source(url, kind):
    source = open_source(url, IngestConfig())
    assert type(source) is kind
    assert source.live


def test_a_path_or_a_file_url_is_a_file(tmp_path):
    path = write_video(tmp_path / "a video.mp4", 2)
    for url in (str(path), path.as_uri()):
        source = open_source(url, IngestConfig())
        assert type(source) is VideoFile
        assert not source.live


def test_a_missing_file_is_an_error(tmp_path):
    with pytest.raises(SourceError, match=r"missing\.mp4 does not exist; give"):
        open_source(str(tmp_path / "missing.mp4"), IngestConfig())


@pytest.mark.parametrize("content", [b"", b"hello world\n" * 50])
def test_a_file_that_is_no_video_is_an_error(tmp_path, content):
    path = tmp_path / "notes.mp4"
    path.write_bytes(content)
    with pytest.raises(SourceError, match="not a video"):
        open_source(str(path), IngestConfig())


def test_a_file_with_sound_only_is_an_error(tmp_path):
    path = tmp_path / "sound.wav"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), "s16", "mono")
        sound.rate = 8000
        container.mux(stream.encode(sound))
    with pytest.raises(SourceError, match="no video stream"):
        open_source(str(path), IngestConfig())


def test_an_empty_folder_is_an_error(tmp_path):
    with pytest.raises(SourceError, match="holds no images"):
        open_source(str(tmp_path), IngestConfig())


@pytest.mark.parametrize("text", ["1 2 3", "a b c", "0 0 0 0 0 0 0 0 1", "nan 0 0 0 1 0 0 0 1"])
def test_a_bad_camera_file_is_an_error(tmp_path, text):
    (tmp_path / "0.png").write_bytes(b"")
    (tmp_path / "K.txt").write_text(text)
    with pytest.raises(SourceError, match=r"K\.txt"):
        open_source(str(tmp_path), IngestConfig())


def test_a_path_or_a_bag_url_is_a_bag(tmp_path):
    bag = write_ros2(tmp_path / "a run", pictures(2))
    (file,) = bag.glob("*.mcap")
    for url in (str(bag), str(file), f"bag:{bag}", f"bag:{file}", bag.as_uri()):
        source = open_source(url, IngestConfig())
        assert type(source) is BagSource
        assert not source.live


def test_a_folder_of_images_beside_no_bag_is_images(tmp_path):
    cv2.imwrite(str(tmp_path / "0.png"), numbered_picture(0))
    assert type(open_source(str(tmp_path), IngestConfig())) is ImageFolder


def test_the_simulator_is_started_elsewhere_and_the_error_says_where():
    with pytest.raises(SourceError, match=r"`worldsystem run sim:orbit` starts both"):
        open_source("sim:orbit", IngestConfig())


@pytest.mark.parametrize(
    ("url", "meant"),
    [
        ("rstp://host/drone", "rtsp:"),
        ("htpp://host/live.ts", "http:"),
        ("cam:0", "camera:"),
        ("sever:", "server:"),
        ("whip://host", "webrtc:"),
        ("v4l:/dev/video0", "v4l2:"),
        ("mcap:run.mcap", "bag:"),
    ],
)
def test_a_mistyped_scheme_is_answered_with_the_nearest(url, meant):
    with pytest.raises(SourceError, match=rf"did you mean {meant}\? Known: a path, file:, bag:"):
        open_source(url, IngestConfig())


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, ["http://127.0.0.1:5001/camera", "set `host` to 0.0.0.0"]),
        (
            {"host": "0.0.0.0", "port": 6000},
            ["http://<address of this machine>:6000/camera", "https pages only"],
        ),
        ({"host": "10.0.0.2", "tls_certificate": "cert.pem"}, ["https://10.0.0.2:5001/camera"]),
    ],
)
def test_webrtc_tells_where_the_page_of_the_camera_is(settings, said, caplog):
    caplog.set_level("INFO")
    open_source("webrtc:", IngestConfig(**settings))
    assert len(caplog.records) == len(said)
    for record, text in zip(caplog.records, said, strict=True):
        assert text in record.getMessage()


def test_every_so_many_pictures_are_handed_on_and_the_others_counted(tmp_path):
    source = open_source(str(write_video(tmp_path / "video.mp4", 10)), IngestConfig(frame_step=4))
    sink = MemorySink()
    summary = source.run(sink, threading.Event())
    assert summary.frames == 3
    assert sink.ids == [number_in(f.rgb) for f in sink.frames] == [0, 4, 8]
    assert {reason for _, reason in sink.drops} == {"skipped"}
    assert sink.settled == list(range(10))
    assert len(sink.units) == 10
    assert source.facts()["frame_step"] == 4


@pytest.mark.parametrize("url", ["gopher://host/video", "nothing:0"])
def test_an_unknown_scheme_is_an_error_that_lists_the_known(url):
    with pytest.raises(SourceError, match=r"unknown kind of source.*rtsp:"):
        open_source(url, IngestConfig())


@pytest.mark.parametrize(
    "url", ["", "ws://127.0.0.1:99999", "server://127.0.0.1:x", "server://127.0.0.1:99999"]
)
def test_an_address_that_means_nothing_is_an_error(url):
    with pytest.raises(SourceError):
        open_source(url, IngestConfig())


@pytest.mark.parametrize(
    "url",
    [
        "ws://me:hidden@drone/ws/video?token=hidden",
        "ws://me:hidden@drone:port/?token=hidden",
        "rstp://me:hidden@host/x?password=hidden",
    ],
)
def test_an_address_that_is_refused_is_told_without_its_secrets(url):
    with pytest.raises(SourceError) as error:
        open_source(url, IngestConfig())
    assert "hidden" not in str(error.value)
    assert "***" in str(error.value)


def test_a_device_is_not_said_to_be_missing():
    with pytest.raises(SourceError, match=r"no file; a camera is `v4l2:/dev/null`"):
        open_source("/dev/null", IngestConfig())
