# SPDX-License-Identifier: Apache-2.0
"""Asking a vision service, which the user names, what an object is."""
