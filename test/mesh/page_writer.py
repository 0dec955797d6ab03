# SPDX-License-Identifier: Apache-2.0
"""A process that pages without end, until the test kills it: it prints each key once written."""

from __future__ import annotations

import sys
import zlib
from pathlib import Path

import numpy as np

from worldsystem_mesh.page_file import PageFile

PAYLOAD = 3000
KEYS = 40


def payload(key: int, turn: int) -> np.ndarray:
    return np.random.default_rng([key, turn]).integers(0, 256, PAYLOAD).astype(np.uint8)


def main() -> None:
    pages = PageFile(Path(sys.argv[1]), PAYLOAD)
    for turn in range(1, 1_000_000):
        for key in range(KEYS):
            body = payload(key, turn)
            pages.write(key, body)
            print(key, turn, zlib.crc32(body), flush=True)


if __name__ == "__main__":
    main()
