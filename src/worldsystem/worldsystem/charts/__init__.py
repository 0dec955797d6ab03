# SPDX-License-Identifier: Apache-2.0
"""How a path, a surface and their errors are drawn: for a run's report and for an evaluation."""
