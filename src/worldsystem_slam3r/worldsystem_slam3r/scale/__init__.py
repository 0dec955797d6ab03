# SPDX-License-Identifier: Apache-2.0
"""Metric scale from whatever measures metres: GPS, barometer, phone poses, known lengths."""
