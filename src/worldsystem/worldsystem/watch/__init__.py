# SPDX-License-Identifier: Apache-2.0
"""The system as a whole, seen from outside: state, figures, health."""
