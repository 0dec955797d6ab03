# SPDX-License-Identifier: Apache-2.0
"""Where a run leaves its files: a folder by the time, which no other run uses."""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from worldsystem.graph import Choice
from worldsystem_core.errors import ConfigError


def new_run_folder(base: Path) -> Path:
    """A folder under `base` named by the time, which did not exist before (not yet made)."""
    name = datetime.now().strftime("%Y%m%d_%H%M%S")
    folder, number = base / name, 1
    while folder.exists():
        number += 1
        folder = base / f"{name}_{number}"
    return folder


def made_run_folder(base: Path) -> Path:
    """As `new_run_folder`, and made at once: who begins in the same second has another."""
    while not _make(folder := new_run_folder(base)):
        pass
    return folder


def in_its_folder(choice: Choice) -> tuple[Choice, bool]:
    """`choice` with its folder made, and whether that was not there before.

    Where another run has just made a folder that was to be this one's own, the next free one is
    taken. Raises `ConfigError` where it cannot be used.
    """
    while not (made := _make(choice.out)) and choice.own_folder:
        choice = replace(choice, out=new_run_folder(choice.out.parent))
    return choice, made


def _make(folder: Path) -> bool:
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir()
    except FileExistsError:
        if folder.is_dir() and os.access(folder, os.W_OK):
            return False
        problem = f"{folder} is a file or cannot be written; choose another --out"
        raise ConfigError(problem) from None
    except OSError as error:
        problem = error.strerror or str(error)
        raise ConfigError(f"cannot make {folder} ({problem}); choose another --out") from error
    return True


class FolderInUse:
    """Says that the run in `folder` goes on, until `close` or until its process ends, however."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._handle: int | None = None
        self._is_over = False
        self.take()

    def take(self) -> None:
        """Say so from now on, where the folder was not there before."""
        if self._handle is not None or self._is_over:
            return
        with suppress(OSError):  # it is not there yet, or lies where there are no locks
            self._handle = os.open(self._folder, os.O_RDONLY)
            fcntl.flock(self._handle, fcntl.LOCK_SH)

    def close(self) -> None:
        """The run has left all that it leaves."""
        self._is_over = True
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None


def is_in_use(folder: Path) -> bool:
    """Whether a run goes on in `folder`; False where that cannot be known."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(handle)
    return False
