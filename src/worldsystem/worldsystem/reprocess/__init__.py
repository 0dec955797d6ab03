# SPDX-License-Identifier: Apache-2.0
"""Recorded runs through the pipeline again with other settings, several at once."""
