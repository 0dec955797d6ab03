# SPDX-License-Identifier: Apache-2.0
"""Encoded video on to an RTSP server, copied."""
