# SPDX-License-Identifier: Apache-2.0
"""Bring-up: the graph, the pipeline without ROS, the app with it, the command line, the report."""
