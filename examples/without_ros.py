# SPDX-License-Identifier: Apache-2.0
"""A mesh and a path from a video in a plain Python loop: no ROS, no servers."""

from pathlib import Path

from worldsystem.pipeline import Pipeline
from worldsystem_core.trajectory import write_tum
from worldsystem_sim.config import SimConfig
from worldsystem_sim.offline import frames
from worldsystem_storage.mesh_files import write_ply

pipeline = Pipeline()
for frame, _ in frames(SimConfig(flight="orbit", duration_s=6.0)):
    pipeline.feed(frame)  # any Frame(id=…, stamp_ns=…, rgb=…): rgb is a uint8 array (h, w, 3)
pipeline.finish()
mesh = pipeline.mesher.mesh()
write_tum(Path("trajectory.tum"), pipeline.trajectory.poses())
write_ply(Path("mesh.ply"), mesh)
print(f"{len(pipeline.trajectory)} poses, {len(mesh.faces)} triangles in mesh.ply")
