# SPDX-License-Identifier: Apache-2.0
"""Keyframes in shared memory: packed as told, the newest only, and gone with their writer."""

from __future__ import annotations

import errno
import os
import struct
from multiprocessing.shared_memory import SharedMemory

import numpy as np
import pytest

from worldsystem_bridge import shared_keyframes
from worldsystem_bridge.shared_keyframes import SharedKeyframes

STAMP_NS = 1_700_000_000_500_000_000


def shared_content(key: str) -> bytes:
    reader = SharedMemory(key.lstrip("/"))
    content = bytes(reader.buf)
    reader.close()
    return content


def test_shared_memory_holds_the_ten_newest_in_the_packed_form() -> None:
    ring = SharedKeyframes()
    points = np.array([[1, 2, 3], [4, 5, 6]], np.float32)
    colours = np.array([[1, 2, 3], [4, 5, 6]], np.uint8)
    base = 4_000_000_000
    try:
        keys = [ring.write(base + i, STAMP_NS, np.eye(4), points, colours) for i in range(11)]
        with pytest.raises(FileNotFoundError):
            shared_content(keys[0])
        assert shared_content(keys[1]), "ten are kept"
        content = shared_content(keys[10])
    finally:
        ring.close()
    assert struct.unpack_from("<QII", content) == (STAMP_NS, 2, 3)
    assert struct.unpack_from("<6f", content, 16 + 64) == (1, 2, 3, 4, 5, 6)
    assert np.frombuffer(content, "<f4", 6, 16 + 64 + 24).tolist() == [1, 2, 3, 4, 5, 6]
    assert content[16 + 64 + 24 + 24 :][:6] == bytes([1, 2, 3, 4, 5, 6])


def test_shared_memory_left_by_a_killed_process_is_replaced() -> None:
    first, second = SharedKeyframes(), SharedKeyframes()
    nothing = np.zeros((0, 3))
    key = first.write(4_000_000_100, 1, np.eye(4), nothing, nothing)
    assert second.write(4_000_000_100, 2, np.eye(4), nothing, nothing) == key
    content = shared_content(key)
    second.close()
    with pytest.raises(FileNotFoundError):
        shared_content(key)
    first.close()
    assert struct.unpack_from("<QII", content) == (2, 0, 3)


def test_a_name_that_another_user_holds_costs_the_key_and_not_the_keyframe(monkeypatch) -> None:
    class Theirs:
        def __init__(self, name: str, create: bool = False, size: int = 0) -> None:
            if create:
                raise FileExistsError(17, "File exists", name)
            raise PermissionError(13, "Permission denied", name)

    monkeypatch.setattr(shared_keyframes, "SharedMemory", Theirs)
    ring, nothing = SharedKeyframes(), np.zeros((0, 3))
    assert ring.write(4_000_000_200, STAMP_NS, np.eye(4), nothing, nothing) == ""
    ring.close()


def test_a_keyframe_that_is_written_again_does_not_outlast_newer_ones() -> None:
    ring, nothing = SharedKeyframes(capacity=3), np.zeros((0, 3))
    base = 4_000_000_300
    try:
        for number in (0, 1, 2, 0, 3):  # the first one moved before the last came
            ring.write(base + number, STAMP_NS, np.eye(4), nothing, nothing)
        with pytest.raises(FileNotFoundError):
            shared_content(f"/slam3r_keyframe_{base}")
        for number in (1, 2, 3):
            assert shared_content(f"/slam3r_keyframe_{base + number}")
    finally:
        ring.close()


def test_full_shared_memory_costs_the_key_and_not_the_process(monkeypatch) -> None:
    def full(file: int, offset: int, size: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    ring, nothing = SharedKeyframes(), np.zeros((0, 3))
    try:
        assert ring.write(4_000_000_400, STAMP_NS, np.eye(4), nothing, nothing) == ""
        with pytest.raises(FileNotFoundError):
            shared_content("/slam3r_keyframe_4000000400")
    finally:
        ring.close()
