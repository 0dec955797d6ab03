# SPDX-License-Identifier: Apache-2.0
"""A package of messages that the sourced ROS may have is built unless it has it."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

OVERLAY = Path(__file__).parents[2] / "src/overlay"
PACKAGES = sorted(path.name for path in OVERLAY.iterdir())
OF_ROS = ("AMENT_PREFIX_PATH", "CMAKE_PREFIX_PATH", "PYTHONPATH")


@pytest.fixture(scope="module")
def no_compilers(tmp_path_factory) -> Path:
    """What CMake is to be told so that it looks for no compiler, which takes it seconds."""
    found = tmp_path_factory.mktemp("toolchain") / "none.cmake"
    found.write_text("set(CMAKE_C_COMPILER_FORCED 1)\nset(CMAKE_CXX_COMPILER_FORCED 1)\n")
    return found


@pytest.mark.skipif(not shutil.which("cmake"), reason="cmake is not installed")
@pytest.mark.parametrize("package", PACKAGES)
@pytest.mark.parametrize("place", ["ours", "the sourced ROS's"])
def test_in_a_path_with_signs_of_expressions_only_our_own_is_built(
    package, place, tmp_path, no_compilers
):
    """Without ament, which is looked for where a package is to be built, CMake ends there."""
    install, ros = tmp_path / "c++(2)/install" / package, tmp_path / f"c++(2)/install/{package}-ros"
    found = (install if place == "ours" else ros) / "share" / package / "cmake"
    found.mkdir(parents=True)
    (found / f"{package}Config.cmake").touch()
    told = subprocess.run(
        [
            *("cmake", "-S", OVERLAY / package, "-B", tmp_path / "build"),
            *(f"-DCMAKE_TOOLCHAIN_FILE={no_compilers}", f"-DCMAKE_INSTALL_PREFIX={install}"),
            f"-D{package}_DIR={found}",
        ],
        env={name: value for name, value in os.environ.items() if name not in OF_ROS},
        capture_output=True,
        text=True,
    )
    told_to_build = "ament_cmake" in told.stderr and "comes from" not in told.stdout
    assert told_to_build is (place == "ours"), told.stdout + told.stderr
    assert (told.returncode == 0) is (place != "ours")
