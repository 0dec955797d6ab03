# SPDX-License-Identifier: Apache-2.0
"""The world as Gaussian splats: kept, merged, streamed."""
