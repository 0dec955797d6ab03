# SPDX-License-Identifier: Apache-2.0
"""Recordings of ROS as a source: MCAP, rosbag2 and rosbag1, whole or broken off."""

from worldsystem_ingest.bag.source import BagSource

__all__ = ["BagSource"]
