# SPDX-License-Identifier: Apache-2.0
"""What every stage shares: frames, events, geometry, hand-off, settings, errors and the ledger."""
