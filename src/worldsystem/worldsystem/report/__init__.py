# SPDX-License-Identifier: Apache-2.0
"""What a run leaves for a person to read: one page, its pictures, and a summary for programs."""
