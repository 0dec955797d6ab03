# SPDX-License-Identifier: Apache-2.0
"""A session's stills: a line each while they come, a list in `metadata.json` at the end."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

STILLS_FILE = "stills.jsonl"


class StillList:
    """`stills.jsonl`, one still a line, so that neither memory nor a save grows with a session.

    Not thread-safe; every method may raise `OSError`.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / STILLS_FILE

    def add(self, still: dict[str, object]) -> None:
        """Append `still`; a crash of this process loses none that were added."""
        line = json.dumps(still).encode() + b"\n"
        with self._path.open("ab", buffering=0) as lines:
            before = lines.tell()
            if lines.write(line) < len(line):
                lines.truncate(before)  # a part of a line would spoil the next
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))

    def in_full(self, session: dict[str, object]) -> str:
        """What is told of `session` as JSON, with all stills as its `frames`."""
        lines = self._path.read_text(encoding="utf-8").splitlines() if self._path.exists() else []
        opening = json.dumps(session, indent=1).removesuffix("\n}")
        return f'{opening},\n "frames": [\n  ' + ",\n  ".join(lines) + "\n ]\n}\n"

    def remove(self) -> None:
        """Remove the file, once its stills are listed elsewhere."""
        self._path.unlink(missing_ok=True)
