# SPDX-License-Identifier: Apache-2.0
"""Fetching large files: resumed where it broke off, checked, and in place only when whole."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from worldsystem_core.errors import FetchError

CHUNK_BYTES = 1 << 20
TIMEOUT_S = 30.0
_MOST_DIGITS = 15
PARTIAL_CONTENT, NOTHING_BEYOND = 206, 416


@dataclass(frozen=True)
class Wanted:
    """What is fetched, and what it must turn out to be.

    Without `size_bytes` it is as long as the server says; without `sha256` only that is checked.
    """

    url: str
    size_bytes: int | None = None
    sha256: str = ""


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
    target's name; an answer that tells another size is one, too, and removes nothing.
    """
    if target.is_file():
        if _is_as_wanted(wanted, target):
            return False
        target.unlink()
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    if wanted.size_bytes is not None and _size(part) > wanted.size_bytes:
        part.unlink()
    try:
        size_bytes = _collect(wanted, part, on_progress, timeout_s)
    except (HTTPException, OSError, OverflowError) as error:
        of = "" if wanted.size_bytes is None else f"of {wanted.size_bytes} "
        raise FetchError(
            f"{wanted.url} broke off after {_size(part)} {of}bytes ({error}); "
            "run the command again: it goes on from there"
        ) from error
    _check(replace(wanted, size_bytes=size_bytes), part)
    part.replace(target)
    return True


def _is_as_wanted(wanted: Wanted, target: Path) -> bool:
    """What is not known of a file is not asked of it: it was put there when it was whole."""
    if wanted.size_bytes not in (None, _size(target)):
        return False
    return not wanted.sha256 or sha256_of(target) == wanted.sha256


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _collect(
    wanted: Wanted, part: Path, on_progress: Callable[[int, int], None], timeout_s: float
) -> int:
    """Add to `part` what is missing; how long the whole is, as far as that can be known."""
    have = _size(part)
    if have == wanted.size_bytes:
        return have
    with _answer(wanted.url, part, timeout_s) as answer:
        have = _size(part)
        resumed = have > 0 and answer.status == PARTIAL_CONTENT
        total = _total(wanted, answer, have if resumed else 0)
        with part.open("ab" if resumed else "wb") as file:
            done = have if resumed else 0
            while chunk := answer.read(CHUNK_BYTES):
                file.write(chunk)
                done += len(chunk)
                on_progress(done, total)
                if done > total:
                    break
            file.flush()
            os.fsync(file.fileno())
    if done < total:
        raise URLError("the connection ended early")
    return total


def _answer(url: str, part: Path, timeout_s: float) -> HTTPResponse:
    """The server's answer to a request for what `part` lacks.

    A part that is as long as the whole, or longer, is removed: what is in it cannot be known.
    """
    have = _size(part)
    request = Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        answer: HTTPResponse = urlopen(request, timeout=timeout_s)
    except HTTPError as error:
        if error.code != NOTHING_BEYOND or not have:
            raise
        error.close()
        part.unlink()
        return _answer(url, part, timeout_s)
    return answer


def _total(wanted: Wanted, answer: HTTPResponse, begin: int) -> int:
    """Length of the whole [bytes] of which `answer` gives what comes from `begin` on.

    Where that is not what is wanted, as of a page that asks to log in, what is there stays.
    """
    length = answer.headers.get("Content-Length", "")
    is_told = length.isascii() and length.isdigit() and len(length) <= _MOST_DIGITS
    total = begin + int(length) if is_told else wanted.size_bytes
    if total is None:
        raise FetchError(
            f"{wanted.url}: the server does not say how long the file is, so nobody could tell "
            "whether it is whole; fetch it with another program, or from a mirror (--origin)"
        )
    if wanted.size_bytes not in (None, total):
        raise FetchError(
            f"{wanted.url} answers with a file of {total} bytes, expected {wanted.size_bytes} "
            "bytes; what was fetched before is kept. Either something on the way answers in its "
            "place (run the command again, from another network), or the file was replaced at its "
            "origin: use a mirror (--origin)"
        )
    return total


def _check(wanted: Wanted, part: Path) -> None:
    size, checksum = _size(part), sha256_of(part) if wanted.sha256 else ""
    if (size, checksum) == (wanted.size_bytes, wanted.sha256):
        return
    part.unlink()
    got, expected = (f" with sha256 {s}" if s else "" for s in (checksum, wanted.sha256))
    raise FetchError(
        f"{wanted.url} gave {size} bytes{got}, expected {wanted.size_bytes} "
        f"bytes{expected}; it was removed. Either the transfer was disturbed "
        "(run the command again) or the file was replaced at its origin"
    )


def sha256_of(path: Path) -> str:
    """Checksum of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
