# SPDX-License-Identifier: Apache-2.0
"""How far a back-end's result can be trusted just now, and what is wrong (docs/health.md)."""

from __future__ import annotations

from dataclasses import dataclass

GOOD = 0.7
"""Score from which nothing needs to be said."""


@dataclass(frozen=True)
class Health:
    """`score` in [0, 1]: 1 = all is well; below `GOOD`, `problem` says what is wrong."""

    score: float
    problem: str = ""


def health_of(backend: object) -> Health | None:
    """A back-end's health; None when it does not tell one."""
    health = getattr(backend, "health", None)
    return health if isinstance(health, Health) else None
