# SPDX-License-Identifier: Apache-2.0
"""Back-ends with networks: boxes by text, masks through video, lifted to the objects of the map."""
