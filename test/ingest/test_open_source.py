# SPDX-License-Identifier: Apache-2.0
"""Which source an address means, and what a person reads when it means none."""

from __future__ import annotations

import av
import numpy as np
import pytest
from ingest_lab import write_video

from worldsystem_core.errors import SourceError
from worldsystem_ingest import source as source_module
from worldsystem_ingest.config import IngestConfig
from worldsystem_ingest.live_url import LiveUrl
from worldsystem_ingest.server import ServerSource
from worldsystem_ingest.source import open_source
from worldsystem_ingest.video_file import VideoFile


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("server:", ServerSource),
        ("ws://127.0.0.1:5001", ServerSource),
        ("server:127.0.0.1:7000", ServerSource),
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


def test_a_missing_camera_is_an_error_that_lists_those_that_are_there(tmp_path, monkeypatch):
    monkeypatch.setattr(source_module, "_DEVICES", tmp_path)
    with pytest.raises(SourceError, match="no camera 7; cameras of this machine: none"):
        open_source("camera:7", IngestConfig())
    (tmp_path / "video0").touch()
    with pytest.raises(SourceError, match=r"video0 \(unnamed\)"):
        open_source("v4l2:/dev/video99", IngestConfig())


@pytest.mark.parametrize("url", ["gopher://host/video", "cam:0"])
def test_an_unknown_scheme_is_an_error_that_lists_the_known(url):
    with pytest.raises(SourceError, match=r"unknown kind of source.*rtsp:"):
        open_source(url, IngestConfig())


@pytest.mark.parametrize("url", ["", "ws://127.0.0.1:99999", "ws://127.0.0.1:x"])
def test_an_address_that_means_nothing_is_an_error(url):
    with pytest.raises(SourceError):
        open_source(url, IngestConfig())
