# SPDX-License-Identifier: Apache-2.0
"""Shared memory that DDS processes left behind when they died (Fast DDS, on Linux).

Each port and segment has a lock file, `_el` or `_sl`, which its owners hold as long as they live.
`fastdds shm clean` looks whether that is free, lets go of it and then deletes the files: one that a
new process took over in between is deleted too, and that process never hears anything again. Here
the locks are held until the files are gone (docs/decisions/076).
"""

from __future__ import annotations

import fcntl
import logging
import os
import re
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

log = logging.getLogger(__name__)

SHARED_MEMORY = Path("/dev/shm")
_OWNED = re.compile(r"(fastrtps_(?:[0-9a-z]{16}|port\d{1,5}))(?:_el|_sl)")
_LOCKS = ("_el", "_sl")
_YOUNG_S = 2.0
"""A lock file that has just been made may be about to be locked."""


def clean_stale_segments(folder: Path = SHARED_MEMORY) -> int:
    """Free the shared memory of DDS processes that died; those of living ones, and what another
    user owns, are left alone. Returns how many ports and segments were freed."""
    try:
        names = os.listdir(folder)
    except OSError:  # none here: nothing is shared through it
        return 0
    owned = {match[1] for name in names if (match := _OWNED.fullmatch(name))}
    freed = sum(_free(folder / name) for name in sorted(owned))
    if freed:
        log.debug("freed %d ports and segments of processes that died", freed)
    return freed


def _free(owned: Path) -> bool:
    """Delete a port or a segment with what belongs to it, unless somebody lives who has it."""
    with _held([owned.with_name(owned.name + lock) for lock in _LOCKS]) as locks:
        if not locks:
            return False
        for path in (owned, owned.with_name(f"sem.{owned.name}_mutex"), *locks):
            with suppress(OSError):
                path.unlink(missing_ok=True)
    return not locks[0].exists()


@contextmanager
def _held(paths: list[Path]) -> Iterator[list[Path]]:
    """Those lock files that there are, all of them held; none where one is another's, or young."""
    with ExitStack() as open_files:
        held: list[Path] = []
        for path in paths:
            try:
                file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            except FileNotFoundError:
                continue
            except OSError:  # another user's
                held = []
                break
            open_files.callback(os.close, file)
            if not _take(file, path):
                held = []
                break
            held.append(path)
        yield held


def _take(file: int, path: Path) -> bool:
    """Hold an open lock file; False if somebody has it, or may be about to, or it was replaced."""
    found = os.fstat(file)
    if time.time() - found.st_mtime < _YOUNG_S:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.path.samestat(found, os.stat(path))
    except OSError:
        return False
