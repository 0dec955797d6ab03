# SPDX-License-Identifier: Apache-2.0
"""MCAP files read record by record, whatever became of them; https://mcap.dev/spec."""
