# SPDX-License-Identifier: Apache-2.0
"""What can go wrong with files."""

from worldsystem_core.errors import WorldSystemError


class StorageError(WorldSystemError):
    """A recording cannot be opened, written or read."""


class DiskFull(StorageError):
    """The free space that recording leaves is reached."""
