# SPDX-License-Identifier: Apache-2.0
"""Video from a browser: the WHIP endpoint, and the page that makes a phone the camera."""
