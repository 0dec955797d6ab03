# SPDX-License-Identifier: Apache-2.0
"""What holds a map together: pose graph, place recognition, verified overlaps, relocalisation."""
