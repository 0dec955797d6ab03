# SPDX-License-Identifier: Apache-2.0
"""The graph, declared once: `launch/full.launch.py` and the embedded runner both read it.

No ROS in here: a table of stages, and what a user's choice means for their parameters.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

from worldsystem_core.errors import ConfigError
from worldsystem_core.shown_url import without_secrets
from worldsystem_ingest.config import IngestConfig
from worldsystem_mesh.config import MeshConfig
from worldsystem_slam3r.config import Slam3rConfig
from worldsystem_viewer.addresses import reached_at

SIMULATOR_SOURCE = "sim"
SIMULATED_S = 60.0
_SERVER_SOURCE = "server:"
_SERVED_SCHEMES = ("server", "webrtc")
MAP_EVERY_S = 0.25
"""What can die alone keeps its map saved so often, where a keyframe came, and goes on in it. With
the picture that it is noticed at and the write, a kill shall cost no more than a second of it."""
FEW_PROCESSORS = 2
"""So few, and all of them are busy while a live run goes on."""
RAW_OUTSIDE_MAX_PX = 8192
"""Stages in processes of their own see only what ingest offers outside its process."""


@dataclass(frozen=True)
class Stage:
    """One node: its name, where its class and its `Config` are, and what runs it alone."""

    name: str
    package: str
    plugin: str
    executable: str
    settings: str

    @property
    def module(self) -> str:
        """The module of its class; its `main` runs the stage as a process."""
        return self.plugin.partition(":")[0]


# In the order the data flows, in which nodes are ended. They are made in the opposite order, so
# that a source finds its listeners there when it starts.
STAGES: tuple[Stage, ...] = (
    Stage(
        "ingest",
        "worldsystem_ingest",
        "worldsystem_ingest.node:IngestNode",
        "ingest",
        "worldsystem_ingest.config:IngestConfig",
    ),
    Stage(
        "slam3r",
        "worldsystem_slam3r",
        "worldsystem_slam3r.node:Slam3rNode",
        "slam3r",
        "worldsystem_slam3r.config:Slam3rConfig",
    ),
    Stage(
        "mesher",
        "worldsystem_mesh",
        "worldsystem_mesh.node:MesherNode",
        "mesher",
        "worldsystem_mesh.config:MeshConfig",
    ),
    Stage(
        "segmenter",
        "worldsystem_segment",
        "worldsystem_segment.node:SegmenterNode",
        "segmenter",
        "worldsystem_segment.config:SegmentConfig",
    ),
    Stage(
        "splats",
        "worldsystem_viewer",
        "worldsystem_viewer.splats.node:SplatsNode",
        "splats",
        "worldsystem_viewer.splats.config:SplatsConfig",
    ),
    Stage(
        "viewer",
        "worldsystem_viewer",
        "worldsystem_viewer.node:ViewerNode",
        "viewer",
        "worldsystem_viewer.config:ViewerConfig",
    ),
    Stage(
        "bridge",
        "worldsystem_bridge",
        "worldsystem_bridge.node:BridgeNode",
        "bridge",
        "worldsystem_bridge.config:BridgeConfig",
    ),
    Stage(
        "recorder",
        "worldsystem_storage",
        "worldsystem_storage.node:RecorderNode",
        "recorder",
        "worldsystem_storage.config:StorageConfig",
    ),
    Stage(
        "reporter",
        "worldsystem",
        "worldsystem.node:ReporterNode",
        "reporter",
        "worldsystem.config:ReporterConfig",
    ),
    Stage(
        "monitor",
        "worldsystem",
        "worldsystem.watch.node:MonitorNode",
        "monitor",
        "worldsystem.config:MonitorConfig",
    ),
)
SIMULATOR = Stage(
    "simulator",
    "worldsystem_sim",
    "worldsystem_sim.node:SimulatorNode",
    "simulator",
    "worldsystem_sim.config:SimConfig",
)
_NAMES = frozenset(stage.name for stage in (*STAGES, SIMULATOR))

Parameters = dict[str, object]


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What a user chooses; everything else is the stages' own defaults (docs/parameters.md).

    `source` is `sim`, `server:` or whatever ingest opens; `out` is the run's folder, with
    `own_folder` one that no other run may share; `extra` overrides single parameters by node name.
    Raises `ConfigError` when there is no such node.
    """

    source: str = SIMULATOR_SOURCE
    backend: str = Slam3rConfig.backend
    device: str = MeshConfig.device
    record: bool = True
    viewer: bool = True
    out: Path
    own_folder: bool = False
    duration_s: float = SIMULATED_S
    realtime: bool = False
    extra: dict[str, Parameters] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_names(self.extra)
        object.__setattr__(self, "out", Path(os.path.expanduser(self.out)))  # no shell does after =

    @property
    def simulated(self) -> bool:
        return is_simulated(self.source)

    @property
    def offline(self) -> bool:
        """A file that is worked through at whatever pace that takes, without losing anything."""
        return not self.realtime and self._is_file

    @property
    def plays_once(self) -> bool:
        """A file that has an end: whoever were to open it again would begin at its beginning."""
        return self._is_file and not self.extra.get("ingest", {}).get("loop", False)

    @property
    def _is_file(self) -> bool:
        """Whether ingest finds something there: it writes out homes and what URLs encode."""
        scheme, _, rest = self.source.partition(":")
        places = [self.source]
        if scheme.lower() == "file":
            places.append(unquote(urlsplit(self.source).path))
        elif scheme.lower() == "bag":
            places.append(unquote(rest.removeprefix("//")))
        return not self.simulated and any(Path(os.path.expanduser(p)).exists() for p in places)

    @property
    def bridged(self) -> bool:
        """Whether RabbitMQ is served: a setting of the bridge or RABBITMQ_URL asks for it."""
        asked = self.extra.get("bridge", {}).keys() - {"use_sim_time"}
        return bool(asked or os.environ.get("RABBITMQ_URL"))

    @property
    def flight(self) -> str:
        """The simulator's flight in `sim:<flight>`; `demo` when none is named."""
        return self.source.partition(":")[2] or "demo"

    @property
    def map_folder(self) -> Path:
        """Where a run that keeps its map does so, unless it was told otherwise."""
        return self.out / "map"

    @property
    def truth_folder(self) -> Path | None:
        """Where the simulator leaves its ground truth; None for other sources."""
        return self.out / "truth" if self.simulated else None


def stages(choice: Choice, *, composed: bool = True) -> list[tuple[Stage, Parameters]]:
    """The nodes to run, each with the parameters that `choice` sets, in the order data flows.

    `composed`: they share a process, in which the reconstruction would wait for the others.
    """
    wanted = {
        "viewer": choice.viewer,
        "splats": choice.viewer,
        "bridge": choice.bridged,
        "recorder": choice.record,
    }
    return [
        (stage, _parameters(stage.name, choice, composed=composed))
        for stage in STAGES
        if wanted.get(stage.name, True)
    ]


def simulator_parameters(choice: Choice) -> Parameters:
    """Parameters of the simulator, which is always a process of its own, as a drone would be."""
    ingest = choice.extra.get("ingest", {})
    host = reached_at(str(ingest.get("host", IngestConfig.host)))
    given: Parameters = {
        "flight": choice.flight,
        "duration_s": choice.duration_s,
        "url": f"ws://{host}:{ingest.get('port', IngestConfig.port)}",
        "out": str(choice.truth_folder),
    }
    return given | choice.extra.get(SIMULATOR.name, {})


def _parameters(name: str, choice: Choice, *, composed: bool) -> Parameters:
    mesher: Parameters = {"device": choice.device}
    if choice.offline:  # quality methods work as time allows; a file shall give the same each time
        mesher["method_still"] = "tsdf"
    map_folder = str(choice.map_folder)
    processors = os.cpu_count() or 1
    apart = composed and not choice.offline and processors > 1
    kept = not composed or (apart and not Path(map_folder).exists())  # a run begins with no map
    kept_map: Parameters = {"map": map_folder, "map_every_s": MAP_EVERY_S}
    given: dict[str, Parameters] = {
        "ingest": {
            "source": _SERVER_SOURCE if choice.simulated else choice.source,
            "realtime": choice.realtime,
            **({} if composed else {"raw_outside_max_px": RAW_OUTSIDE_MAX_PX}),
        },
        "slam3r": {
            "backend": choice.backend,
            "synchronous": choice.offline,
            "prompt_depth": not choice.offline,
            "own_process": apart,
            # a second one waits in line behind all other stages, and the tracker waits for it
            **({"threads": 1} if not choice.offline and processors <= FEW_PROCESSORS else {}),
            "map_folder": map_folder,
            **(kept_map if kept else {}),
        },
        "mesher": mesher,
        "segmenter": {"map_folder": map_folder, **({} if composed else kept_map)},
        "viewer": {"rerun": True},
        "recorder": {"folder": str(choice.out), "name": "bag"},
        "reporter": {
            "folder": str(choice.out),
            "source": without_secrets(choice.source),
            "backend": choice.backend,
            "truth": str(choice.truth_folder or ""),
        },
    }
    return given.get(name, {}) | choice.extra.get(name, {})


def is_simulated(source: str) -> bool:
    """Whether the pictures come from the built-in simulator."""
    return source == SIMULATOR_SOURCE or source.startswith("sim:")


def is_served(source: str) -> bool:
    """Whether senders come to a server of ours, and tell their camera themselves, or do not."""
    return source.partition(":")[0] in _SERVED_SCHEMES


def check_names(nodes: Iterable[str]) -> None:
    """Raise `ConfigError` when one of `nodes` is none of the graph's."""
    if unknown := sorted(set(nodes) - _NAMES):
        known = ", ".join(sorted(_NAMES))
        raise ConfigError(f"no node is called {', '.join(unknown)}; known: {known}")
