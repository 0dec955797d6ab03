# SPDX-License-Identifier: Apache-2.0
"""The `slam3r` back-end: two networks that place every frame's points in one scene."""
