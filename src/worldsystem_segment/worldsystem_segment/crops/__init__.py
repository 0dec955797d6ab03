# SPDX-License-Identifier: Apache-2.0
"""Pictures of each object: its last crops, the sharpest one, and several fused into one."""
