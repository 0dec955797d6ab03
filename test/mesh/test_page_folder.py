# SPDX-License-Identifier: Apache-2.0
"""Page files come and go: an orderly end, a kill and a crash leave no pile of them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

from worldsystem_mesh.page_file import PageFile, PagingFailed

SIZE = 1000
KEEPER = f"""
import sys
import numpy as np
from worldsystem_mesh.page_file import PageFile
pages = PageFile.temporary(sys.argv[1], "blocks", {SIZE})
pages.write(7, np.full({SIZE}, 9, np.uint8))
print(pages.path, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def keeper(tmp_path):
    """A process that has a page file in `tmp_path`, whose place is its attribute `pages`."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    process = subprocess.Popen(
        [sys.executable, "-c", KEEPER, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    process.pages = Path(process.stdout.readline().strip())
    yield process
    process.kill()
    process.communicate(timeout=10)


def test_the_file_of_a_killed_process_can_be_read_until_the_next_begins(keeper, tmp_path):
    os.kill(keeper.pid, signal.SIGKILL)
    keeper.wait(timeout=10)
    left = PageFile.open_existing(keeper.pages, SIZE)
    np.testing.assert_array_equal(left.read(7), np.full(SIZE, 9, np.uint8))
    left.close(delete=False)
    following = PageFile.temporary(tmp_path, "views", SIZE)
    assert list(tmp_path.iterdir()) == [following.path]
    following.close(delete=True)


def test_files_that_are_in_use_stay_whoever_uses_them(keeper, tmp_path):
    own = [PageFile.temporary(tmp_path, what, SIZE) for what in ("blocks", "views", "surface")]
    assert set(tmp_path.iterdir()) == {keeper.pages, *(pages.path for pages in own)}
    for pages in own:
        pages.close(delete=True)


def test_a_file_that_somebody_reads_stays(keeper, tmp_path):
    os.kill(keeper.pid, signal.SIGKILL)
    keeper.wait(timeout=10)
    reader = PageFile.open_existing(keeper.pages, SIZE)
    following = PageFile.temporary(tmp_path, "blocks", SIZE)
    assert keeper.pages.exists()
    reader.close(delete=False)
    following.close(delete=True)


def test_other_files_in_the_folder_are_left_alone(tmp_path):
    others = [tmp_path / name for name in ("a.pages", "worldsystem-notes.txt")]
    for path in others:
        path.write_text("mine")
    PageFile.temporary(tmp_path, "blocks", SIZE).close(delete=True)
    assert sorted(tmp_path.iterdir()) == sorted(others)


def test_without_a_folder_a_page_file_has_no_name_that_a_crash_could_leave(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    pages = PageFile.temporary("", "blocks", SIZE)
    payload = np.arange(SIZE).astype(np.uint8)
    for key in range(50):
        pages.write(key, payload + np.uint8(key))
    assert list(tmp_path.iterdir()) == []
    np.testing.assert_array_equal(pages.read(49), payload + np.uint8(49))
    assert pages.size_bytes > 50 * SIZE
    pages.close(delete=True)


def test_an_orderly_end_leaves_the_folder_empty(make_mesher, plane_keyframes, tmp_path):
    folder = tmp_path / "pages"
    mesher = make_mesher(min_weight=0.5, page_dir=str(folder))
    for _ in range(2):  # the second time after a reset
        mesher.integrate(plane_keyframes(1)[0])
        pool = mesher.volume.pool
        pool._clock += 1
        pool._page_out(np.arange(mesher.volume.block_count, dtype=np.int32))
        assert len(list(folder.iterdir())) == 1
        mesher.reset()
        assert list(folder.iterdir()) == []


def test_a_folder_that_cannot_be_written_to_is_an_error_that_says_what_to_set(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(PagingFailed, match="set page_dir"):
        PageFile.temporary(str(tmp_path / "file"), "blocks", SIZE)
