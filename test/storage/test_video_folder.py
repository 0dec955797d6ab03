# SPDX-License-Identifier: Apache-2.0
"""A session's folder may have any name."""

from __future__ import annotations

from pathlib import Path

from worldsystem_storage.config import StorageConfig
from worldsystem_storage.video_file import VideoSession


def test_video_goes_into_a_folder_that_is_named_by_the_time_of_day(
    tmp_path, monkeypatch, encoded_video
):
    monkeypatch.chdir(tmp_path)
    session = VideoSession(Path("12:30"), StorageConfig(reserve_mib=1))
    assert all(session.write(unit) for unit in encoded_video(12))
    session.close()
    assert not session.dropped
    assert (tmp_path / session.videos[0]).stat().st_size > 0
