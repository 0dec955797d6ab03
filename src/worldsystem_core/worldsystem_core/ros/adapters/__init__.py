# SPDX-License-Identifier: Apache-2.0
"""How each native type becomes ROS messages and back."""
