# SPDX-License-Identifier: Apache-2.0
"""Objects of the map: what every back-end sees becomes things that keep their ids."""
