# SPDX-License-Identifier: Apache-2.0
"""The only room of the core that knows ROS."""
