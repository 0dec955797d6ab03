# SPDX-License-Identifier: Apache-2.0
"""The page's modules in node, without a browser: a script beside them prints JSON."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from worldsystem_viewer.page_files import WEB

NODE = shutil.which("node")
needs_node = pytest.mark.skipif(NODE is None, reason="node is not installed")


def run_beside_the_page(folder: Path, script: str, given: object = None) -> Any:
    """What `script`, a module in an empty `folder` that gets the page's files, prints.

    It finds `given` as JSON in `process.argv[2]`.
    """
    shutil.copytree(WEB, folder, dirs_exist_ok=True)
    (folder / "package.json").write_text('{"type": "module"}')
    (folder / "told.js").write_text(script)
    command = [str(NODE), "told.js", json.dumps(given)]
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
