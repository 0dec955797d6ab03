# SPDX-License-Identifier: Apache-2.0
"""Keyframes in, named tracks and map objects out."""
