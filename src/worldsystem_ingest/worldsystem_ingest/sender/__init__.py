# SPDX-License-Identifier: Apache-2.0
"""One drone or phone: its packets, numbers, clock, telemetry, and what it is told."""
