# SPDX-License-Identifier: Apache-2.0
"""How good a run was, against ground truth: its path and its surface."""
