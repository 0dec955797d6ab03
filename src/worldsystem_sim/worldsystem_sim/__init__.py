# SPDX-License-Identifier: Apache-2.0
"""A drone flight simulator with exact ground truth."""
