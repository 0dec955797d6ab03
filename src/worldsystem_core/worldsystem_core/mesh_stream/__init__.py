# SPDX-License-Identifier: Apache-2.0
"""Sending a changing surface over a thin line: what there is, what a client has, what goes next."""
