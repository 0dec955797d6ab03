# SPDX-License-Identifier: Apache-2.0
"""Maps on disk: one folder, versioned, checksummed, written atomically (docs/map_format.md)."""
