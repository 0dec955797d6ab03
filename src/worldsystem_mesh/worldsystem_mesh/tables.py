# SPDX-License-Identifier: Apache-2.0
"""The marching-cubes table by its room's name; clients need it too, so it lies in the core."""

from __future__ import annotations

from worldsystem_core.marching_cubes import (
    EDGES,
    Edge,
    case_triangles,
    edge_offset_table,
    edge_table,
    triangle_count_table,
)

__all__ = [
    "EDGES",
    "Edge",
    "case_triangles",
    "edge_offset_table",
    "edge_table",
    "triangle_count_table",
]
