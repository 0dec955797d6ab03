# SPDX-License-Identifier: Apache-2.0
"""Fewer faces, by quadric error (Garland & Heckbert, SIGGRAPH 1997), as Open3D does it."""

from __future__ import annotations

import numpy as np

from worldsystem_core.surface import Mesh


def decimated(mesh: Mesh, max_faces: int) -> Mesh:
    """`mesh` with at most about `max_faces` faces; itself where it has no more, or for 0."""
    if not max_faces or len(mesh.faces) <= max_faces:
        return mesh
    import open3d as o3d  # two seconds; a mesher that is begun anew must not wait for them

    full = o3d.geometry.TriangleMesh(
        o3d.utility.Vector3dVector(mesh.vertices.astype(np.float64)),
        o3d.utility.Vector3iVector(mesh.faces),
    )
    full.vertex_colors = o3d.utility.Vector3dVector(mesh.colours / 255.0)
    few = full.simplify_quadric_decimation(max_faces)
    few.remove_unreferenced_vertices()
    return Mesh(
        vertices=np.asarray(few.vertices).astype(np.float32),
        colours=np.rint(255.0 * np.clip(np.asarray(few.vertex_colors), 0, 1)).astype(np.uint8),
        faces=np.asarray(few.triangles).astype(np.int32),
    )
