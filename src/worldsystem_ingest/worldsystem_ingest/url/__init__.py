# SPDX-License-Identifier: Apache-2.0
"""Live video from addresses that we open, again whenever they break."""
