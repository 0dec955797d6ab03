# SPDX-License-Identifier: Apache-2.0
"""A page's modules in node, without a browser: a script beside them prints JSON."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

NODE = shutil.which("node")
needs_node = pytest.mark.skipif(NODE is None, reason="node is not installed")


def run_beside(web: Path, folder: Path, script: str, given: object = None) -> Any:
    """What `script`, a module in `folder` that gets copies of the page's files, prints.

    It finds `given` as JSON in `process.argv[2]`. Files that are in the folder stay as they are.
    """
    for path in web.rglob("*"):
        copy = folder / path.relative_to(web)
        if path.is_file() and not copy.exists():
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, copy)
    (folder / "package.json").write_text('{"type": "module"}')
    (folder / "told.js").write_text(script)
    command = [str(NODE), "told.js", json.dumps(given)]
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
