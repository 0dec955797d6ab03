# SPDX-License-Identifier: Apache-2.0
"""Recording as rosbag2 MCAP, the received video as mp4, and meshes as files."""
