# SPDX-License-Identifier: Apache-2.0
"""A stream of video that is carried: who sends it, what it counts, and how consumers get it."""
