# SPDX-License-Identifier: Apache-2.0
"""Reconstruction by multi-view geometry: no network, no weights, on the CPU."""
