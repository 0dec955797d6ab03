# SPDX-License-Identifier: Apache-2.0
"""How a graph begins in a folder that may hold a map."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from worldsystem_slam3r.maps.folder import is_map
from worldsystem_slam3r.maps.next_life import is_ended

if TYPE_CHECKING:
    from worldsystem_slam3r.session.backend import GraphBackend

log = logging.getLogger(__name__)


def open_map(graph: GraphBackend, folder: Path, every_s: float) -> None:
    """Go on in the map that lies there, if one does and has not ended; keep it saved (0 = not).

    It is loaded once no other run writes there: one that was told to end may still be at its last
    save. One that cannot be loaded is a `MapError`, and is left to others.
    """
    is_map(folder)  # a `MapError` where it cannot be reached, which the claim would not tell
    if every_s:
        graph.maps.save_by_itself(folder, every_s)
    try:
        if is_ended(folder):
            log.info("the map in %s was ended by a reset: a new one begins", folder)
        elif is_map(folder):
            graph.load_map(folder)
    except BaseException:
        graph.maps.let_go()
        raise
