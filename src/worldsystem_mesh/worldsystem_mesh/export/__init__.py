# SPDX-License-Identifier: Apache-2.0
"""The surface as files for other programs: PLY, OBJ, GLB; fewer faces, or with a texture."""
