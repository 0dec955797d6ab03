# SPDX-License-Identifier: Apache-2.0
"""Rigid and similarity transforms, the pinhole camera, and trajectory alignment."""
