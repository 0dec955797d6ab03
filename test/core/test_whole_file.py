# SPDX-License-Identifier: Apache-2.0
"""A file is there as a whole or as it was."""

from __future__ import annotations

import errno
import os

import pytest

from worldsystem_core.whole_file import replace_text, write_whole


@pytest.mark.parametrize("synced", [False, True])
def test_a_file_is_replaced_and_nothing_lies_beside_it(tmp_path, synced):
    path = tmp_path / "file"
    path.write_bytes(b"the old one, which is longer")
    write_whole(path, b"new", synced=synced)
    replace_text(tmp_path / "text", "grün\n")
    assert path.read_bytes() == b"new"
    assert (tmp_path / "text").read_bytes() == "grün\n".encode()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["file", "text"]


def test_a_disk_that_does_not_confirm_leaves_the_old_file(tmp_path, monkeypatch):
    def refuse(descriptor):
        raise OSError(errno.EIO, "Input/output error")

    path = tmp_path / "file"
    path.write_bytes(b"old")
    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(OSError, match="Input/output"):
        write_whole(path, b"new", synced=True)
    assert path.read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == ["file"]
