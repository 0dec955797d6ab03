# SPDX-License-Identifier: Apache-2.0
"""How Rerun's window is arranged: the world, the picture, and the log of what changes.

`python -m worldsystem_viewer.rerun_blueprint FILE.rbl` writes it (`config/rerun.rbl`).
"""

from __future__ import annotations

import sys
from typing import Any

APPLICATION = "worldsystem"


def blueprint(rerun: Any) -> Any:
    """The blueprint; `rerun` is the module, which is optional."""
    layout = rerun.blueprint
    world = layout.Spatial3DView(
        origin="/world",
        name="World",
        contents=["+ /world/**", "- /world/camera/picture/tracks"],
        background=[18, 23, 34],
        line_grid=layout.LineGrid3D(visible=True),
    )
    picture = layout.Spatial2DView(origin="/world/camera/picture", name="Camera")
    changes = layout.DataframeView(origin="/world/objects", name="Objects")
    side = layout.Vertical(picture, changes, row_shares=[3, 2])
    return layout.Blueprint(
        layout.Horizontal(world, side, column_shares=[7, 3]),
        layout.TimePanel(state="collapsed"),
        layout.SelectionPanel(state="hidden"),
        layout.BlueprintPanel(state="hidden"),
    )


def main() -> None:
    """Write the blueprint to the named file."""
    import rerun

    blueprint(rerun).save(APPLICATION, sys.argv[1])


if __name__ == "__main__":
    main()
