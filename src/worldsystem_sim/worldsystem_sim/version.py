# SPDX-License-Identifier: Apache-2.0
"""Which version of this package's code is running, by content: for caches that depend on it."""

from __future__ import annotations

import hashlib
from pathlib import Path


def code_digest(*modules: str) -> str:
    """SHA-256 of the source of the named modules of this package, as hexadecimal digits."""
    digest = hashlib.sha256()
    for name in modules:
        digest.update(Path(__file__).with_name(f"{name}.py").read_bytes())
    return digest.hexdigest()
