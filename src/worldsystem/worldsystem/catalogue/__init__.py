# SPDX-License-Identifier: Apache-2.0
"""All runs of a folder: listed, compared, shown as a page, and the oldest removed."""
