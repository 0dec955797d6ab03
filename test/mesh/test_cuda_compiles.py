# SPDX-License-Identifier: Apache-2.0
"""Kernels compile for CUDA also where there is no such device: Warp brings the compiler along.

What differs between the two compilers (names that CUDA has already, narrowing, missing functions)
is then found before anybody has a card.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from worldsystem_mesh.precompile import MODULES

COMPILE = """
import importlib, sys
import warp as wp
wp.config.log_level = wp.LOG_ERROR
wp.init()
wp.compile_aot_module(
    importlib.import_module(sys.argv[1]), arch=75, module_dir=sys.argv[2], use_ptx=True
)
"""


@pytest.mark.parametrize("module", [module.__name__ for module in MODULES])
def test_kernels_compile_for_cuda_without_a_device(module: str, tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-c", COMPILE, module, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    (compiled,) = tmp_path.glob("*.ptx")
    assert ".entry" in compiled.read_text()
