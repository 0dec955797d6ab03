# SPDX-License-Identifier: Apache-2.0
"""A back-end at work, as the node sees it: the same whether it runs here or in its own process."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from worldsystem_core.errors import BackendError
from worldsystem_core.frames import Frame
from worldsystem_core.reconstruction import Event
from worldsystem_core.telemetry import Telemetry
from worldsystem_slam3r.backend import (
    OpenedBackend,
    begin_anew,
    numbered_from,
    open_backend,
)
from worldsystem_slam3r.config import Slam3rConfig
from worldsystem_slam3r.health import Health, health_of
from worldsystem_slam3r.session.services import graph_of, map_service, tell_again

if TYPE_CHECKING:
    from worldsystem_slam3r.apart.process import Reserve

log = logging.getLogger(__name__)

OF_NO_FRAME = -1


class WorkerEnded(BackendError):
    """The process of a back-end is gone, with its map; another can be started."""


@dataclass(frozen=True, eq=False)
class Answer:
    """What one frame caused, or why it caused nothing; or what came of itself (`OF_NO_FRAME`)."""

    frame_id: int
    events: list[Event] = field(default_factory=list)
    failure: Exception | None = None


@dataclass(frozen=True)
class Condition:
    """What the stage's `/diagnostics` say of a back-end."""

    facts: dict[str, object] = field(default_factory=dict)
    health: Health | None = None
    map_failure: str = ""


class Running(Protocol):
    """A back-end that was opened. `has_graph`: whether one holds its map together and saves it."""

    name: str
    note: str
    has_graph: bool

    @property
    def pid(self) -> int | None:
        """The process of its own in which it works, if it has one."""
        ...

    def feed(self, frame: Frame) -> list[Answer]:
        """Take the next frame; the answers that are there by now, oldest first."""
        ...

    def answers(self) -> list[Answer]:
        """Answers that came meanwhile, without waiting."""
        ...

    @property
    def waiting(self) -> int:
        """Frames that were taken and not yet answered."""
        ...

    def settle(self) -> list[Answer]:
        """Wait for every answer that is due."""
        ...

    def finish(self) -> list[Answer]:
        """The stream has ended: every answer that is still due, and what was held back."""
        ...

    def observe(self, sample: Telemetry) -> None:
        """Take a measurement from beside the video; without a graph it is let go."""
        ...

    def map_service(self, what: str, place: str) -> str:
        """`save_map` or `load_map` at `place`; the sentence about it, or a `MapError`."""
        ...

    def tell_again(self) -> str:
        """Have all keyframes told again; the sentence about it, or a `MapError`."""
        ...

    def begin_anew(self, next_id: int) -> list[Answer]:
        """An empty map, whose keyframes are numbered on from `next_id`; after `settle`. The last
        answers of the old map, as one that came of itself meanwhile."""
        ...

    def condition(self) -> Condition:
        """How it is; of one in its own process as it was told last."""
        ...

    def close(self) -> None:
        """End it, whatever it is at."""
        ...


class RunningHere:
    """In the calling thread: every frame is answered before `feed` returns (`Running`)."""

    waiting = 0
    pid: int | None = None

    def __init__(self, config: Slam3rConfig, first_id: int = 0) -> None:
        self._config = config
        opened = open_backend(config.backend, config)
        self._take(numbered_from(opened, first_id) if first_id else opened)

    def _take(self, opened: OpenedBackend) -> None:
        self._opened = opened
        self._graph = graph_of(opened.backend)
        self.name, self.note = opened.name, opened.note
        self.has_graph = self._graph is not None

    def feed(self, frame: Frame) -> list[Answer]:
        return [Answer(frame.id, self._opened.backend.feed(frame))]

    def collect(self) -> list[Answer]:
        """What became known between frames, which is told with the next one otherwise."""
        collect = getattr(self._opened.backend, "collect", None)
        events = collect() if collect is not None else []
        return [Answer(OF_NO_FRAME, events)] if events else []

    def answers(self) -> list[Answer]:
        return []

    def settle(self) -> list[Answer]:
        return []

    def finish(self) -> list[Answer]:
        return [Answer(OF_NO_FRAME, self._opened.backend.finish())]

    def observe(self, sample: Telemetry) -> None:
        if self._graph is not None:
            self._graph.observe(sample)

    def map_service(self, what: str, place: str) -> str:
        return map_service(self._graph, what, place)

    def tell_again(self) -> str:
        return tell_again(self._graph)

    def begin_anew(self, next_id: int) -> list[Answer]:
        self._take(begin_anew(self._opened, self._config, next_id=next_id))
        return []

    def condition(self) -> Condition:
        graph = self._graph
        return Condition(
            facts={} if graph is None else graph.facts(),
            health=health_of(self._opened.backend),
            map_failure="" if graph is None else graph.maps.failure,
        )

    def close(self) -> None:
        """Nothing is left behind: threads of a back-end are daemons, and `finish` joins them."""


def start_backend(
    config: Slam3rConfig,
    told: Callable[[], None],
    *,
    first_id: int = 0,
    reserve: Reserve | None = None,
    alive: Callable[[], None] = lambda: None,
) -> Running:
    """Open the back-end of `config` where `own_process` says; its keyframes count from `first_id`.

    A process in `reserve` becomes its own, where there is one. `told` is called, from any thread,
    when an answer came that nobody waits for, and `alive` now and then while its process is waited
    for. Errors are those of `open_backend`.
    """
    if not config.own_process:
        return RunningHere(config, first_id)
    from worldsystem_slam3r.apart.client import RunningApart

    process = reserve.take() if reserve is not None else None
    if process is not None:
        try:
            return RunningApart(config, told, first_id, process, alive)
        except WorkerEnded as ended:
            log.warning("%s, which was in reserve: another is begun", ended)
    return RunningApart(config, told, first_id, alive=alive)


def reserve_for(config: Slam3rConfig) -> Reserve | None:
    """What keeps a process in reserve, where the back-end has one of its own."""
    if not (config.own_process and config.spare_process):
        return None
    from worldsystem_slam3r.apart.client import reserve

    return reserve(config.backend)
