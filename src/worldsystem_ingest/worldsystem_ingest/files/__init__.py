# SPDX-License-Identifier: Apache-2.0
"""Video files and folders of images, and what containers share."""
