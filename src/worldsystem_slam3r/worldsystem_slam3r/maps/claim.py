# SPDX-License-Identifier: Apache-2.0
"""Who may write to a map: one process at a time, since each save sweeps away what others wrote.

The lock is of the machine, and the kernel lets go of it when the process ends, however it ends.
"""

from __future__ import annotations

import fcntl
import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from worldsystem_core.errors import MapError

log = logging.getLogger(__name__)

LOCK = ".lock"
PATIENCE_S = 10.0
"""A process that was told to end, or whose parent was killed, may still be at its last picture."""
_POLL_S = 0.1
_GUARD = threading.Lock()
_HELD: dict[Path, tuple[int, int]] = {}
"""Of this process: the open lock file of each map, and how many claims it has."""


class MapClaim:
    """A claim to a map's folder; those of one process go together."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder.resolve()
        self._taken = False

    def take(self, patience_s: float = 0.0) -> None:
        """Have it, if the folder is there; raises `MapError` while another process does."""
        deadline = time.monotonic() + patience_s
        while not self._taken and self._folder.is_dir() and not self._try():
            if time.monotonic() >= deadline:
                raise MapError(
                    f"{self._folder} is kept saved by another run; end that one, or name another "
                    "folder (`--set slam3r.map=FOLDER`)"
                )
            time.sleep(_POLL_S)

    def _try(self) -> bool:
        with _GUARD:
            file, claims = _HELD.get(self._folder, (-1, 0))
            try:
                file = _locked(self._folder / LOCK) if file < 0 else file
            except BlockingIOError:
                return False
            except OSError as error:  # a save will say so, if it cannot write there either
                log.debug("%s cannot be locked: %s", self._folder, error)
                return True
            _HELD[self._folder] = file, claims + 1
            self._taken = True
            return True

    def release(self) -> None:
        """Let go of it; nothing where it is not had."""
        with _GUARD:
            if not self._taken:
                return
            self._taken = False
            file, claims = _HELD.pop(self._folder)
            if claims > 1:
                _HELD[self._folder] = file, claims - 1
            else:
                with suppress(OSError):
                    (self._folder / LOCK).unlink()  # while it is held: see `_locked`
                os.close(file)


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Have the map meanwhile; raises `MapError` where another process does."""
    claim = MapClaim(folder)
    claim.take()
    try:
        yield
    finally:
        claim.release()


def _locked(path: Path) -> int:
    """The file at `path`, held; one that was removed while it was being opened is left."""
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(file), os.stat(path)):
                return file
        except FileNotFoundError:
            pass
        except OSError:
            os.close(file)
            raise
        os.close(file)
