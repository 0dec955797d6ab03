# SPDX-License-Identifier: Apache-2.0
"""A recorded run in the formats that people train and measure with."""
