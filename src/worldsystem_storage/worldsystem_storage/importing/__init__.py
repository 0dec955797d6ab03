# SPDX-License-Identifier: Apache-2.0
"""Data sets, videos and other bags as bags of ours."""
