# SPDX-License-Identifier: Apache-2.0
"""Recording as rosbag2 MCAP, and writers for meshes and trajectories."""
