# SPDX-License-Identifier: Apache-2.0
"""The world as people see it: web page, Foxglove and Rerun."""
