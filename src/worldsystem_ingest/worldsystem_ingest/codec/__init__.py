# SPDX-License-Identifier: Apache-2.0
"""From byte streams to access units, and from those to pictures; no network and no files here."""
