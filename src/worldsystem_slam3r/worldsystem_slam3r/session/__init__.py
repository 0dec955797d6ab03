# SPDX-License-Identifier: Apache-2.0
"""A run's map around whichever back-end: held together, in metres, kept on disk, begun anew."""
