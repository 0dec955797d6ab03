# SPDX-License-Identifier: Apache-2.0
"""The reconstruction back-ends by name."""

from __future__ import annotations

from collections.abc import Callable

from worldsystem_core.errors import BackendError
from worldsystem_core.reconstruction import ReconstructionBackend
from worldsystem_slam3r.config import Slam3rConfig


def _geometric(config: Slam3rConfig) -> ReconstructionBackend:
    from worldsystem_slam3r.geometric.system import GeometricBackend
    from worldsystem_slam3r.precompile import warm_up_once

    warm_up_once()
    return GeometricBackend(config)


_MAKERS: dict[str, Callable[[Slam3rConfig], ReconstructionBackend]] = {"geometric": _geometric}


def backend_names() -> list[str]:
    """Names that `create_backend` knows."""
    return sorted(_MAKERS)


def create_backend(name: str, config: Slam3rConfig | None = None) -> ReconstructionBackend:
    """Build the back-end `name`; an unknown name is a `BackendError` that lists the known ones.

    The first `geometric` back-end of a process loads its kernels, which takes half a second, or up
    to 20 s where they were never compiled (`python -m worldsystem_slam3r.precompile` does that).
    """
    if name not in _MAKERS:
        known = ", ".join(backend_names())
        raise BackendError(f"reconstruction back-end '{name}' is not known; choose one of: {known}")
    return _MAKERS[name](config or Slam3rConfig(backend=name))
