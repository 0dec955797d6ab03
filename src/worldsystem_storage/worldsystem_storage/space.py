# SPDX-License-Identifier: Apache-2.0
"""The free space that recording leaves on a disk."""

from __future__ import annotations

import shutil
from pathlib import Path

from worldsystem_storage.errors import DiskFull

MIB = 1 << 20
_RESUME_SHARE = 1.25  # of the reserve must be free again, so that recording does not flutter


class Reserve:
    """`reserve_mib` of the disk that `folder` lies on stay free."""

    def __init__(self, folder: Path, reserve_mib: int) -> None:
        self._folder = folder
        self._reserve_mib = reserve_mib

    def check(self) -> None:
        """Raise `DiskFull` when the reserve is reached."""
        free = free_bytes(self._folder)
        if free < self._reserve_mib * MIB:
            raise DiskFull(
                f"recording to {self._folder} stopped: {free // MIB} MiB free, "
                f"{self._reserve_mib} MiB are kept (reserve_mib); make room and it goes on"
            )

    def has_room_again(self, more_bytes: int = 0) -> bool:
        """Whether there is clearly more than the reserve, and `more_bytes` on top."""
        wanted = _RESUME_SHARE * self._reserve_mib * MIB + more_bytes
        try:
            return free_bytes(self._folder) >= wanted
        except OSError:
            return False


def free_bytes(folder: Path) -> int:
    """What an ordinary user may still write on the disk of `folder`, or of what will hold it."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(folder).free
