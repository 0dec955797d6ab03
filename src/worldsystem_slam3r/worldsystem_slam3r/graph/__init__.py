# SPDX-License-Identifier: Apache-2.0
"""On top of every back-end: pose graph, place recognition, loop closure, relocalisation."""
