# SPDX-License-Identifier: Apache-2.0
"""Keyframes in, a coloured surface out; cost follows what changed."""
