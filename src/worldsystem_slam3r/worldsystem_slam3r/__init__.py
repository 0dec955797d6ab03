# SPDX-License-Identifier: Apache-2.0
"""Reconstruction back-ends behind one interface: frames in, poses and keyframes out."""
