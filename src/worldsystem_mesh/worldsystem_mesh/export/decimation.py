# SPDX-License-Identifier: Apache-2.0
"""Fewer faces, by quadric error (Garland & Heckbert, SIGGRAPH 1997), as Open3D does it.

It works in a process of its own: Open3D holds the interpreter lock, and a large mesh may take more
memory than there is.
"""

from __future__ import annotations

import multiprocessing
import signal
import threading
import time
from multiprocessing.connection import Connection

import numpy as np

from worldsystem_core.child_process import die_with_parent
from worldsystem_core.errors import BackendError
from worldsystem_core.surface import Mesh

_LIMIT_S = 120.0
_LIMIT_S_PER_FACE = 2e-4
"""A million faces may take five minutes, far more than they need."""
_JOIN_S = 2.0


def decimated(mesh: Mesh, max_faces: int) -> Mesh:
    """`mesh` with at most about `max_faces` faces; itself where it has no more, or for 0.

    Raises `BackendError` when the process that does it ends or takes too long.
    """
    if not max_faces or len(mesh.faces) <= max_faces:
        return mesh
    return _by_a_process(mesh, max_faces)


def _by_a_process(mesh: Mesh, max_faces: int) -> Mesh:
    context = multiprocessing.get_context("spawn")
    pipe, theirs = context.Pipe()
    process = context.Process(target=_work, args=(theirs,), daemon=True, name="mesh_decimation")
    begun_s, limit_s = time.monotonic(), _LIMIT_S + _LIMIT_S_PER_FACE * len(mesh.faces)
    process.start()
    theirs.close()
    limit = threading.Timer(limit_s, process.kill)
    limit.start()
    try:
        pipe.send((mesh, max_faces))
        few: Mesh = pipe.recv()
    except (EOFError, OSError) as error:
        process.join(_JOIN_S)
        raise BackendError(
            f"decimation ended with {process.exitcode} after {time.monotonic() - begun_s:.0f} s "
            f"of at most {limit_s:.0f}; is there memory for {len(mesh.faces)} faces?"
        ) from error
    finally:
        limit.cancel()
        limit.join()
        process.kill()
        process.join(_JOIN_S)
        pipe.close()
    return few


def _work(pipe: Connection) -> None:
    """The process: one mesh in, one out."""
    die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a file that is being written is waited for
    pipe.send(_with_fewer_faces(*pipe.recv()))


def _with_fewer_faces(mesh: Mesh, max_faces: int) -> Mesh:
    import open3d as o3d  # two seconds, which only this process has to spend

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
