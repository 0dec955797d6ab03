# SPDX-License-Identifier: Apache-2.0
"""What a node asks of the graph, if there is one, without ROS."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from worldsystem_core.errors import MapError
from worldsystem_core.reconstruction import ReconstructionBackend

if TYPE_CHECKING:
    from worldsystem_slam3r.session.backend import GraphBackend


def graph_of(backend: ReconstructionBackend) -> GraphBackend | None:
    """The graph around a back-end; None where it is turned off or cannot run here."""
    try:
        from worldsystem_slam3r.session.backend import GraphBackend
    except ImportError:  # its solver is not installed, which `open_backend` has said
        return None
    return backend if isinstance(backend, GraphBackend) else None


def tell_again(graph: GraphBackend | None) -> str:
    """Have all keyframes told again with the next pictures; the sentence about it, or a
    `MapError`."""
    if graph is None:
        raise MapError("there is no graph that keeps keyframes: start with slam3r.graph=true")
    return f"{graph.maps.tell_again()} keyframes are told again"


def map_service(graph: GraphBackend | None, what: str, place: str) -> str:
    """`save_map` or `load_map` at `place`; the sentence about it, or a `MapError`."""
    if graph is None:
        raise MapError("there is no graph to keep a map: start with slam3r.graph=true")
    if not place:
        raise MapError("no folder was named: give one, or set slam3r.map")
    if what == "save_map":
        return graph.save_map(Path(place))
    return graph.load_map(Path(place))
