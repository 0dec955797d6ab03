# SPDX-License-Identifier: Apache-2.0
"""The `da3` back-end: Depth Anything 3 in a sliding window (Lin et al., 2025, arXiv:2511.10647)."""
