# SPDX-License-Identifier: Apache-2.0
"""Slower ways to mesh a region that the camera has left alone, behind one interface."""
