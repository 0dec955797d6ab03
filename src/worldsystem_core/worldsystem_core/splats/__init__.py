# SPDX-License-Identifier: Apache-2.0
"""Gaussian splats: made from pointmaps, kept as a world, packed, drawn and written to files."""
