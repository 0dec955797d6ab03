# SPDX-License-Identifier: Apache-2.0
"""Remake docs/parameters.md and docs/topics.md from the code; `--check` only says if they are old.

Parameters come from every stage's `Config`; topics from the table in worldsystem_core.ros.topics,
and who publishes and reads them from the nodes' source. Topics need rclpy: without it their page
is left alone.
"""

from __future__ import annotations

import argparse
import importlib.util
import inspect
import sys
from pathlib import Path
from pkgutil import resolve_name

from topics_page import topics_page

from worldsystem.graph import SIMULATOR, STAGES, Stage
from worldsystem_core.config import Setting, settings_of

ROOT = Path(__file__).resolve().parent.parent
_HEAD = """# Parameters

Made by `make docs` from each stage's `config.py`; do not edit.

Set one on the command line with `--set NODE.NAME=VALUE` (`worldsystem demo --set mesher.voxel=0.05
ingest.host=0.0.0.0`), for a node that runs alone with `-p` or a parameter file (`ros2 run
worldsystem_mesh mesher --ros-args -p voxel:=0.05`). All are read when the node starts and cannot
change afterwards. An unknown name or a value outside its limits ends the start with an error.
"World units" are metres when the scale is known and arbitrary otherwise (see
[conventions](conventions.md)). `worldsystem run`, `worldsystem demo` and the launch file set some
of them from their own options: `worldsystem run --help`.
"""


def main(arguments: list[str] | None = None) -> int:
    """Rewrite both pages, or with `--check` return 1 when one is stale."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; 1 when stale")
    parser.add_argument("--folder", type=Path, default=ROOT / "docs")
    options = parser.parse_args(arguments)
    stale = 0
    for name, text in pages().items():
        path = options.folder / name
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        stale = 1
        if options.check:
            print(f"docs/{name} is stale; run `make docs`", file=sys.stderr)
        else:
            path.write_text(text, encoding="utf-8")
    return stale if options.check else 0


def pages() -> dict[str, str]:
    """File name → text of every page that can be made here."""
    found = {"parameters.md": parameters_page()}
    if all(importlib.util.find_spec(name) for name in ("rclpy", "worldsystem_msgs", "tf2_msgs")):
        found["topics.md"] = topics_page(ROOT)
    return found


def parameters_page() -> str:
    """One section a node, in the order the data flows."""
    sections = [_section(stage) for stage in (*STAGES, SIMULATOR)]
    return "\n".join([_HEAD, *sections])


def _section(stage: Stage) -> str:
    config = resolve_name(stage.settings)
    meaning = " ".join((inspect.getdoc(config) or "").split())
    return "\n".join(
        [
            f"## {stage.name}",
            "",
            f"`{stage.package}`, `{config.__name__}`: {meaning}",
            "",
            "| parameter | type | default | limits | meaning |",
            "|---|---|---|---|---|",
            *(_row(setting) for setting in settings_of(config)),
            "",
        ]
    )


def _row(setting: Setting) -> str:
    default = "empty" if setting.default == "" else f"`{_yaml(setting.default)}`"
    cells = (f"`{setting.name}`", setting.type_name, default, setting.limits, setting.help)
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _yaml(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


if __name__ == "__main__":
    sys.exit(main())
