# SPDX-License-Identifier: Apache-2.0
"""A plain ROS 2 node that follows a run: prints the camera's position and what the mesh gained.

Start it in another terminal while `worldsystem run` or `ros2 launch worldsystem full.launch.py`
goes on: `tools/env.sh python examples/listen.py`. Nothing but messages comes from WorldSystem.
"""

import rclpy
from geometry_msgs.msg import PoseStamped
from rclpy.node import Node
from worldsystem_msgs.msg import MeshDelta


class Listener(Node):
    """Subscribes as rviz2 or any other node would."""

    def __init__(self) -> None:
        super().__init__("listener")
        self.create_subscription(PoseStamped, "slam/pose", self.on_pose, 10)
        self.create_subscription(MeshDelta, "mesh/delta", self.on_mesh, 50)

    def on_pose(self, pose: PoseStamped) -> None:
        at, frame = pose.pose.position, pose.header.frame_id
        print(f"camera at {at.x:.3f} {at.y:.3f} {at.z:.3f} in {frame}", flush=True)

    def on_mesh(self, delta: MeshDelta) -> None:
        changed, gone = len(delta.blocks), len(delta.removed) // 3
        print(f"mesh: {changed} blocks changed, {gone} gone, {delta.total_faces} triangles now")


if __name__ == "__main__":
    rclpy.init()
    try:
        rclpy.spin(Listener())
    except KeyboardInterrupt:
        print("ended")
    except Exception:
        if rclpy.ok():  # Ctrl-C ends the context, maybe in the middle of preparing a wait
            raise
