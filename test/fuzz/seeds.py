# SPDX-License-Identifier: Apache-2.0
"""Where the search begins: real messages, written to `corpus/<target>/` by `python seeds.py`."""

from __future__ import annotations

import sys

import core_seeds
import ingest_seeds
import message_seeds
import port_seeds
import segment_seeds
import slam3r_seeds
import viewer_seeds
from targets import CORPUS

_MODULES = (
    *(core_seeds, ingest_seeds, message_seeds, port_seeds),
    *(segment_seeds, slam3r_seeds, viewer_seeds),
)
SEEDS = {target: make for module in _MODULES for target, make in module.SEEDS.items()}


def main() -> int:
    for target, seeds in SEEDS.items():
        folder = CORPUS / target
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in seeds().items():
            (folder / name).write_bytes(data)
    return 0


if __name__ == "__main__":
    sys.exit(main())
