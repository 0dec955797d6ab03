# SPDX-License-Identifier: Apache-2.0
"""Fetching large files: resumed where it broke off, checked, and in place only when whole."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError
from urllib.request import Request, urlopen

from worldsystem_core.errors import FetchError

CHUNK_BYTES = 1 << 20
TIMEOUT_S = 30.0
PARTIAL_CONTENT = 206


@dataclass(frozen=True)
class Wanted:
    """What is fetched, and what it must turn out to be."""

    url: str
    size_bytes: int
    sha256: str


def fetch(
    wanted: Wanted,
    target: Path,
    *,
    on_progress: Callable[[int, int], None] = lambda done_bytes, total_bytes: None,
    timeout_s: float = TIMEOUT_S,
) -> bool:
    """Bring `wanted` to `target`; false when it was already there and whole.

    What arrives is collected in `<target>.part`, which the next call goes on from. A file of
    another size or checksum is removed and a `FetchError`, so that nothing wrong ever bears the
    target's name.
    """
    if target.is_file():
        if target.stat().st_size == wanted.size_bytes and sha256_of(target) == wanted.sha256:
            return False
        target.unlink()
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    if part.is_file() and part.stat().st_size > wanted.size_bytes:
        part.unlink()
    try:
        _collect(wanted, part, on_progress, timeout_s)
    except (URLError, OSError) as error:
        have = part.stat().st_size if part.is_file() else 0
        raise FetchError(
            f"{wanted.url} broke off after {have} of {wanted.size_bytes} bytes ({error}); "
            "run the command again: it goes on from there"
        ) from error
    _check(wanted, part)
    part.replace(target)
    return True


def _collect(
    wanted: Wanted, part: Path, on_progress: Callable[[int, int], None], timeout_s: float
) -> None:
    have = part.stat().st_size if part.is_file() else 0
    if have == wanted.size_bytes:
        return
    request = Request(wanted.url, headers={"Range": f"bytes={have}-"} if have else {})
    with urlopen(request, timeout=timeout_s) as answer:
        resumed = have > 0 and answer.status == PARTIAL_CONTENT
        with part.open("ab" if resumed else "wb") as file:
            done = have if resumed else 0
            while chunk := answer.read(CHUNK_BYTES):
                file.write(chunk)
                done += len(chunk)
                on_progress(done, wanted.size_bytes)
                if done > wanted.size_bytes:
                    break
            file.flush()
            os.fsync(file.fileno())
    if done < wanted.size_bytes:
        raise URLError("the connection ended early")


def _check(wanted: Wanted, part: Path) -> None:
    size, checksum = part.stat().st_size, sha256_of(part)
    if (size, checksum) == (wanted.size_bytes, wanted.sha256):
        return
    part.unlink()
    raise FetchError(
        f"{wanted.url} gave {size} bytes with sha256 {checksum}, expected {wanted.size_bytes} "
        f"bytes with sha256 {wanted.sha256}; it was removed. Either the transfer was disturbed "
        "(run the command again) or the file was replaced at its origin"
    )


def sha256_of(path: Path) -> str:
    """Checksum of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
