# SPDX-License-Identifier: Apache-2.0
"""DDS domains for tests, which run two at once."""

from __future__ import annotations

import os
from zlib import crc32

_FIRST, _COUNT = 10, 90  # runs take them from 0 on, `reprocess` from 101 down


def own_domain(of: object) -> int:
    """One for the tests of a folder or file, `of`, in which none is heard that runs meanwhile, nor,
    in all likelihood, another run of tests."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    drawn = crc32(f"{os.getpid()} {of}".encode()) % (_COUNT // 2)
    return _FIRST + 2 * drawn + worker % 2
