# SPDX-License-Identifier: Apache-2.0
"""docs/topics.md: topics with types and quality of service, services, and who uses them."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from worldsystem.graph import RAW_OUTSIDE_MAX_PX, STAGES

# What the types do not say. A topic without a line here fails the page, and so the test.
MEANINGS = {
    "IMAGE": "decoded picture, rgb8, as taken (not undistorted), `camera_optical_frame`",
    "CAMERA_INFO": "its camera, same stamp, when the source knows it; zeros once where that ends",
    "VIDEO": "one H.264 or H.265 access unit (Annex B), as received; `format` says which",
    "IMU": "acceleration [m/s²] and angular velocity [rad/s], `base_link`",
    "ATTITUDE": "orientation of the body in an east-north-up frame; all else marked unknown",
    "GPS": "position fix [degree, m]",
    "PRESSURE": "absolute air pressure [Pa]",
    "BATTERY": "charge, voltage, current, temperature of the sender's battery",
    "ODOMETRY": "where the sender's own filter (ARKit, ARCore, an autopilot) puts it, level frame",
    "POSE": "camera pose `world_from_cam`, one for each tracked frame, `scene` or `map`",
    "PATH": "the whole corrected path, once a second, a long one more seldom, `scene` or `map`",
    "KEYFRAME": "keyframe with dense points; its later moves and removals",
    "POINTS": "the keyframe's points alone, for rviz2, `camera_optical_frame`",
    "CLOUD": "points of all keyframes, corrected, at most `slam3r.cloud_points`, `scene` or `map`; "
    "made only while somebody listens",
    "MESH": "blocks of the surface that changed, blocks that are gone",
    "SPLATS": "chunks of splats that are new, changed, moved or gone",
    "MESH_STREAM": "the surface in a byte budget, coded, coarse first; only while somebody listens",
    "MESH_STATISTICS": "how the mesher stands, once a second; which method made which region",
    "TRACKS": "objects in a keyframe: id, label, box, mask",
    "LABELS": "the same as a picture of ids; 0 is no object",
    "OBJECTS": "objects of the map: id, label, 3D box",
    "OVERLAY": "the keyframe's picture with its tracks drawn over it, while somebody listens",
    "MARKERS": "the map's objects as boxes and names, for rviz2",
    "CROPS": "an object's best picture until now (JPEG), with a margin of 20 %",
    "IDENTITIES": "what the configured vision service said of an object, or why not",
    "TF": "`odom` → `base_link`, one for each tracked frame",
    "TF_STATIC": "`scene` or `map` → `odom`, `base_link` → `camera_link` → `camera_optical_frame`",
    "CLOCK": "the picture's time, with `ingest.clock`, for nodes with `use_sim_time`",
    "LEDGER": "a stage's account of its frames, once or twice a second and at its end",
    "DIAGNOSTICS": "state of each stage, once or twice a second",
}
_HEAD = """# Topics and services

Made by `make docs` from `worldsystem_core/ros/topics.py` and the nodes; do not edit.

Names without a leading slash are relative to the node's namespace. "Native type" is the object
that subscribers in the same process receive by reference; other processes receive the message
([architecture](architecture.md#topics-by-reference)).

The `history`, `depth`, `reliability` and `durability` of each topic can be overridden with
`qos_overrides./<topic>.<publisher|subscription>.<policy>` parameters; another policy is an error. A
subscription's `depth` is also how many messages wait in a stage, whoever publishes, except of
pictures in slam3r (`slam3r.queue_frames`) and of poses in the viewer, keyframes and static
transforms, of which a fixed number does. The other policies say how DDS carries messages, and
nothing between stages of one process. A publisher that offers less than a node asks for is not
heard by it; `/diagnostics` and `worldsystem status` say so.

Topics that come from "others", too, may have publishers anywhere: the transforms of a robot's other
nodes, an autopilot's driver beside the drone's own telemetry. Of every other topic a stage hears
nobody else while a stage of its own process publishes it.
"""
_TAIL = """The recorder writes every topic but {bulky}:
pictures are in the video, points in the keyframes, markers are drawn from objects. The viewer
offers every topic to Foxglove and makes a message only while somebody has subscribed to it.
`camera/image_raw` is offered outside the process only up to the size that
`ingest.raw_outside_max_px` allows (the longer side); where each stage is a process (`--separate`,
`composed:=false`, compose) that is up to {raw_outside_px} px. When others listen for larger
pictures, ingest warns and names the parameter. Every further video stream has the topics that
ingest publishes once more, in a namespace of the stream's name. Their frames are named as those of
the first stream, and `/tf` has only the first one's place.
"""


_FLOW = [stage.name for stage in STAGES]
# Who publishes and reads what by a variable, which the nodes' source does not show.
_PUBLISHED = {"ingest": ("IMU", "ATTITUDE", "GPS", "PRESSURE", "BATTERY", "ODOMETRY")}
_READ = {"slam3r": ("GPS", "PRESSURE", "ODOMETRY"), "recorder": ("IMAGE", "VIDEO")}


@dataclass
class Uses:
    """Who does what, by the nodes' source."""

    publishers: defaultdict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    readers: defaultdict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    services: list[tuple[str, str, str]] = field(default_factory=list)


def topics_page(root: Path) -> str:
    """The page's text; needs rclpy and the message packages."""
    from worldsystem_core.ros import topics

    uses = uses_of_nodes(root / "src")
    names = {id(value): name for name, value in vars(topics).items() if name.isupper()}
    bulky = ", ".join(f"`{topic.name}`" for topic in topics.BULKY)
    rows = [_row(names[id(topic)], topic, topics.__annotations__, uses) for topic in topics.ALL]
    return "\n".join(
        [
            _HEAD,
            "| topic | message | native type | reliability, history | from | to | content |",
            "|---|---|---|---|---|---|---|",
            *rows,
            "",
            _TAIL.format(bulky=bulky, raw_outside_px=RAW_OUTSIDE_MAX_PX),
            "## Services",
            "",
            "| service | type | node |",
            "|---|---|---|",
            *(f"| `{name}` | `{kind}` | {node} |" for name, kind, node in sorted(uses.services)),
            "",
        ]
    )


def _row(constant: str, topic: Any, annotations: dict[str, Any], uses: Uses) -> str:
    kind = topic.adapter.ros_type
    native = re.sub(r"^Topic\[(?:\w+\.)?(\w+)\]$", r"\1", str(annotations[constant]))
    cells = (
        f"`{topic.name}`",
        f"`{kind.__module__.split('.')[0]}/msg/{kind.__name__}`",
        f"`{native}`",
        _quality(topic.qos),
        ", ".join([*uses.publishers[constant], *(["others"] if topic.shared else [])]),
        ", ".join(sorted(uses.readers[constant], key=_FLOW.index)),
        MEANINGS[constant],
    )
    return f"| {' | '.join(cells)} |"


def _quality(qos: Any) -> str:
    words = [qos.reliability.name.lower().replace("_", " "), f"last {qos.depth}"]
    if qos.durability.name == "TRANSIENT_LOCAL":
        words.append("latched (transient local)")
    return ", ".join(words)


def uses_of_nodes(source: Path) -> Uses:
    """Which node advertises, listens to and serves what, read from every `node.py`."""
    uses = Uses()
    for constant in ("LEDGER", "DIAGNOSTICS"):
        uses.publishers[constant].append("every node")
    for table, known in ((_PUBLISHED, uses.publishers), (_READ, uses.readers)):
        for node, constants in table.items():
            for constant in constants:
                known[constant].append(node)
    for path in sorted(source.glob("worldsystem*/*/**/node.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        node = _node_name(tree)
        for method, arguments in _calls(tree):
            first = ast.unparse(arguments[0]) if arguments else ""
            if method == "listen_to_keyframes":
                uses.readers["KEYFRAME"].append(node)
            elif method == "create_service":
                uses.services.append((str(ast.literal_eval(arguments[1])), first, node))
            elif first.startswith("topics."):
                constant = first.removeprefix("topics.")
                if method == "advertise":
                    uses.publishers[constant].append(node)
                elif method == "listen":
                    uses.readers[constant].append(node)
    return uses


def _node_name(tree: ast.Module) -> str:
    for method, arguments in _calls(tree):
        if method == "__init__" and arguments and isinstance(arguments[0], ast.Constant):
            return str(arguments[0].value)
    raise ValueError("a node.py names no node in super().__init__")


def _calls(tree: ast.Module) -> Iterator[tuple[str, list[ast.expr]]]:
    for call in ast.walk(tree):
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute):
            yield call.func.attr, call.args
        elif isinstance(call, ast.Call) and isinstance(call.func, ast.Name):
            yield call.func.id, call.args
