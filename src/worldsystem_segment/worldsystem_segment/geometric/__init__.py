# SPDX-License-Identifier: Apache-2.0
"""Instances from geometry alone: cut a pointmap into things, keep their identity in the map."""
