# SPDX-License-Identifier: Apache-2.0
"""The reconstruction back-ends by name, and what runs where the one asked for cannot."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from worldsystem_core.errors import BackendError, WorldSystemError
from worldsystem_core.frames import Frame
from worldsystem_core.reconstruction import ReconstructionBackend
from worldsystem_slam3r.config import Slam3rConfig
from worldsystem_slam3r.maps.next_life import end_map

if TYPE_CHECKING:
    from worldsystem_slam3r.session.backend import GraphBackend

log = logging.getLogger(__name__)

AUTO = "auto"


@dataclass(frozen=True, eq=False)
class OpenedBackend:
    """A running back-end under its own name, and what has to be said about how it was chosen."""

    backend: ReconstructionBackend
    name: str
    note: str = ""


@dataclass(frozen=True)
class Refusal:
    """Why no back-end takes a picture: the ledger's reason, and words for a person."""

    reason: str
    words: str


def refusal_of(frame: Frame, last: tuple[int, int] | None, config: Slam3rConfig) -> Refusal | None:
    """What is wrong with a picture that comes after that of `last` (id, stamp [ns]), if anything.

    Back-ends raise an error at it, as of their caller's making; but whoever may publish pictures
    can send one late, twice, or too small to show anything.
    """
    from worldsystem_slam3r.geometric.intake import LEAST_SIDE_PX

    width, side = frame.width, min(frame.width, frame.height)
    if side < LEAST_SIDE_PX or side * config.processing_width < LEAST_SIDE_PX * width:
        return Refusal(
            "too_small",
            f"pictures of {width}×{frame.height} are too small: both sides need {LEAST_SIDE_PX} "
            f"pixels, also once reduced to slam3r.processing_width={config.processing_width}",
        )
    if last is not None and frame.stamp_ns > last[1] and frame.id <= last[0]:
        return Refusal(
            "out_of_order",
            f"picture {frame.id} came after picture {last[0]}, though its stamp is newer: ids have "
            "to grow; have who publishes pictures number on, or begin anew by calling slam3r/reset",
        )
    if last is not None and (frame.id <= last[0] or frame.stamp_ns < last[1]):
        return Refusal(
            "out_of_order",
            f"a picture of {frame.stamp_ns} ns came after one of {last[1]} ns: those that are not "
            "newer than the last are let go; for a source that begins again call slam3r/reset",
        )
    return None


def _geometric(config: Slam3rConfig) -> ReconstructionBackend:
    from worldsystem_slam3r.geometric.system import GeometricBackend
    from worldsystem_slam3r.precompile import warm_up_once

    warm_up_once()
    return GeometricBackend(config)


def _slam3r(config: Slam3rConfig) -> ReconstructionBackend:
    return _neural("slam3r", config)


def _slam3r_tiny(config: Slam3rConfig) -> ReconstructionBackend:
    return _neural("slam3r_tiny", config)


def _da3(config: Slam3rConfig) -> ReconstructionBackend:
    from worldsystem_slam3r.da3.package import package_problem

    if problem := package_problem():
        raise BackendError(f"back-end 'da3' cannot run: {problem}")
    from worldsystem_slam3r.da3.create import create

    return create(config)


def _neural(name: str, config: Slam3rConfig) -> ReconstructionBackend:
    from worldsystem_slam3r.weight_files import find_weights

    files = find_weights(name, config.weights)
    try:
        from worldsystem_slam3r.slam3r.create import create
    except ImportError as error:
        raise BackendError(f"back-end '{name}' needs torch ({error}); run `make setup`") from error
    return create(files, config)


_MAKERS: dict[str, Callable[[Slam3rConfig], ReconstructionBackend]] = {
    "geometric": _geometric,
    "slam3r": _slam3r,
    "slam3r_tiny": _slam3r_tiny,
    "da3": _da3,
}
_LOADED = {
    "slam3r": ("worldsystem_slam3r.slam3r.create",),
    "slam3r_tiny": ("worldsystem_slam3r.slam3r.create",),
    "da3": ("worldsystem_slam3r.da3.create",),
}
"""The modules that makers import."""
_CHEAP_TO_RENEW = ("geometric",)
"""Back-ends that may be opened anew for a new sub-map; the others begin one by themselves."""


def backend_names() -> list[str]:
    """Names that `create_backend` knows."""
    return [*_MAKERS, AUTO]


def check_name(name: str) -> None:
    """Raise a `BackendError` that lists the known names when `name` is none of them."""
    if name not in backend_names():
        known = ", ".join(backend_names())
        raise BackendError(f"reconstruction back-end '{name}' is not known; choose one of: {known}")


def load_backend(name: str) -> None:
    """Import what `open_backend` imports for this name, and load its kernels: the most of the time
    that opening takes, without its weights. What is missing is told by who opens it."""
    with suppress(ImportError):
        import_module("worldsystem_slam3r.session.backend")
    with suppress(ImportError):
        for module in _LOADED.get(name, ()):
            import_module(module)
    if name in ("geometric", AUTO):
        from worldsystem_slam3r.precompile import warm_up_once

        warm_up_once()


def create_backend(name: str, config: Slam3rConfig | None = None) -> ReconstructionBackend:
    """Build the back-end `name` alone, without the graph around it; see `open_backend`."""
    return _open(name, config or Slam3rConfig(backend=name)).backend


def open_backend(name: str, config: Slam3rConfig | None = None) -> OpenedBackend:
    """Build the back-end `name` and, with `config.graph`, the graph around it.

    An unknown name is a `BackendError` that lists the known ones.

    One that cannot run here is an error that says what to do, or, with `fallback`, makes room for
    `geometric`; `auto` takes the best that keeps up with a video here. Either is said in the log
    and in the note. The first `geometric` back-end of a process loads its kernels, which takes
    half a second, or up to 20 s where they were never compiled (`python -m
    worldsystem_slam3r.precompile` does that).
    """
    config = config or Slam3rConfig(backend=name)
    from worldsystem_slam3r.session.restartable import RenewableBackend

    opened = _open(name, config)
    anew = partial(_MAKERS[opened.name], config) if opened.name in _CHEAP_TO_RENEW else None
    backend = RenewableBackend(opened.backend, anew)
    opened = replace(opened, backend=backend)
    if not config.graph:
        return opened
    try:
        from worldsystem_slam3r.session.backend import GraphBackend
    except ImportError as error:
        if error.name != "gtsam":
            raise
        return _without_graph(opened)
    return replace(opened, backend=GraphBackend(backend, config))


def _kept_saved(graph: GraphBackend, config: Slam3rConfig) -> GraphBackend:
    """One with an empty map, which takes the place of the one in `config.map`."""
    if config.map and config.map_every_s:
        graph.maps.save_by_itself(Path(config.map), config.map_every_s)
    return graph


def begin_anew(opened: OpenedBackend, config: Slam3rConfig, *, next_id: int) -> OpenedBackend:
    """The same back-end with an empty map, whose keyframes are numbered on from `next_id`.

    What it held back is lost. Where the map is saved by itself, the new one takes the place of the
    old one there; until then that lies there as one that has ended.
    """
    from worldsystem_slam3r.session.restartable import RenewableBackend
    from worldsystem_slam3r.session.services import graph_of

    make = partial(_MAKERS[opened.name], config)
    graph = graph_of(opened.backend)
    if graph is not None:
        fresh = graph.begun_anew(make)
        if config.map and config.map_every_s:
            end_map(Path(config.map))
        return replace(opened, backend=_kept_saved(fresh, config))
    if isinstance(opened.backend, RenewableBackend):
        opened.backend.begin_anew(make)
        return opened
    opened.backend.finish()
    return replace(opened, backend=RenewableBackend(make(), None, first_id=next_id, first_submap=1))


def numbered_from(opened: OpenedBackend, first_id: int) -> OpenedBackend:
    """A back-end that was just opened, numbering its keyframes on from those of one before it."""
    from worldsystem_slam3r.session.restartable import RenewableBackend
    from worldsystem_slam3r.session.services import graph_of

    graph = graph_of(opened.backend)
    if graph is not None:
        graph.number_from(first_id)
        return opened
    if isinstance(opened.backend, RenewableBackend):
        opened.backend.number_from(first_id)
        return opened
    return replace(opened, backend=RenewableBackend(opened.backend, None, first_id=first_id))


def _without_graph(opened: OpenedBackend) -> OpenedBackend:
    note = (
        "no loops are closed and no map is kept: 'gtsam' is not installed; "
        "run `pip install --no-deps -r tools/requirements-bare.txt`"
    )
    log.warning("%s", note)
    return replace(opened, note=f"{opened.note}; {note}" if opened.note else note)


def _open(name: str, config: Slam3rConfig) -> OpenedBackend:
    check_name(name)
    if name == AUTO:
        return _best(config)
    try:
        return OpenedBackend(_MAKERS[name](config), name)
    except WorldSystemError as error:
        if not config.fallback or name == "geometric":
            raise
        return _instead(f"back-end '{name}' cannot run here: {error}", config)


def _best(config: Slam3rConfig) -> OpenedBackend:
    """`slam3r` where it runs at the pace of a video, else `geometric`."""
    from worldsystem_slam3r.catalogue import backend_states

    slam3r = next(state for state in backend_states(config) if state.name == "slam3r")
    if not slam3r.runs or not slam3r.fast:
        reason = slam3r.why_not or "it would be too slow without a GPU"
        return _instead(f"back-end 'slam3r' was not chosen: {reason}", config)
    try:
        return OpenedBackend(_MAKERS["slam3r"](config), "slam3r", "back-end 'slam3r' was chosen")
    except WorldSystemError as error:
        return _instead(f"back-end 'slam3r' cannot run here: {error}", config)


def _instead(reason: str, config: Slam3rConfig) -> OpenedBackend:
    note = f"{reason}; 'geometric' runs instead"
    log.warning("%s", note)
    return OpenedBackend(_MAKERS["geometric"](config), "geometric", note)
