# SPDX-License-Identifier: Apache-2.0
"""The block code: blocks of the surface in two to three bytes a vertex (docs/mesh_code.md)."""
