# SPDX-License-Identifier: Apache-2.0
"""How many frames the sender says it sent: the first entry of the frame ledger."""

from __future__ import annotations

import csv
from pathlib import Path

from worldsystem.graph import is_served, is_simulated
from worldsystem_sim.fates import UNSENT

FRAMES_FILE = "frames.csv"


def frames_sent(truth_folder: str, source: str) -> int | None:
    """Frames in the simulator's own list but the one at which it was stopped; None when it left
    none, or did not send them to `source`: a recording of its flight may be a part of it."""
    path = Path(truth_folder) / FRAMES_FILE
    live = is_simulated(source) or is_served(source)
    if not live or not truth_folder or not path.is_file():
        return None
    with path.open(newline="") as lines:
        return sum(1 for row in csv.DictReader(lines) if row.get("fate") != UNSENT)
