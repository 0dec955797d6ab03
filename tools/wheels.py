# SPDX-License-Identifier: Apache-2.0
"""Make wheels of the whole workspace, which `pip` installs on a machine without ROS and colcon.

    make wheels
    pip install --find-links dist -c dist/constraints.txt worldsystem

Run by `make wheels`, after `make setup`: the Python packages are built from their sources, the
messages are taken as colcon installed them, for this Python and this kind of machine.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).resolve().parent.parent
TOOLS = ROOT / "tools"
MESSAGES = "worldsystem_msgs"
OVERLAY = ("composition_interfaces", "foxglove_msgs", "tf2_msgs")
PYTHON = f"python{sys.version_info[0]}.{sys.version_info[1]}"
TAG = f"cp{sys.version_info[0]}{sys.version_info[1]}"
NOT_NEEDED = ("cmake", "hook", "environment", "package.*", "local_setup.*", "__pycache__", "*.c")
BUILD_ONLY = ("ros-ament", "ros-python-cmake", "ros-rosidl", "ros-fastcdr")
BARE = ("gtsam", "einops")
"""Of requirements-bare.txt what runs; what they wrongly declare does no harm to a user."""


class WheelsError(Exception):
    """The wheels cannot be made; the message says what to do."""


def main() -> int:
    """Make the wheels; 0 on success."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "dist", help="folder of the wheels")
    options = parser.parse_args()
    try:
        make_wheels(options.out.resolve())
    except WheelsError as error:
        print(f"wheels: {error}", file=sys.stderr)
        return 1
    return 0


def make_wheels(out: Path) -> None:
    """Fill `out` with the wheels and the versions that they were tried with."""
    out.mkdir(parents=True, exist_ok=True)
    for old in out.glob("worldsystem*.whl"):
        old.unlink()
    with TemporaryDirectory(prefix="worldsystem-wheels-") as folder:
        work = Path(folder)
        for wheel in python_wheels(work):
            pack(amended(wheel, work / "unpacked"), out)
        pack(messages_tree(work), out)
    (out / "constraints.txt").write_text(constraints())
    print(f"{len(list(out.glob('worldsystem*.whl')))} wheels in {out}")


def constraints() -> str:
    """The versions that all was tried with; gtsam's wheel wants a later pytest than our tests."""
    lines = (TOOLS / "constraints.txt").read_text().splitlines(keepends=True)
    return "".join(line for line in lines if not line.startswith("pytest"))


def packages() -> list[Path]:
    """Our Python packages."""
    return sorted(path.parent for path in (ROOT / "src").glob("worldsystem*/setup.py"))


def version() -> str:
    """Of all packages: they are released together."""
    found: set[str] = {
        re.findall(r"<version>(.+?)</version>", path.read_text())[0]
        for path in (ROOT / "src").glob("worldsystem*/package.xml")
    }
    if len(found) != 1:
        raise WheelsError(f"packages have different versions ({', '.join(sorted(found))})")
    return found.pop()


def python_wheels(work: Path) -> list[Path]:
    """A wheel of each Python package, built in a copy, since setuptools leaves files behind."""
    tree, built = work / "tree", work / "built"
    leave = shutil.ignore_patterns("__pycache__", "build", "*.egg-info")
    for name in ("launch", "config", *(f"src/{package.name}" for package in packages())):
        shutil.copytree(ROOT / name, tree / name, ignore=leave)
    sources = [str(tree / "src" / package.name) for package in packages()]
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check"]
    run([*pip, "--no-deps", "--no-build-isolation", "--wheel-dir", str(built), *sources])
    return sorted(built.glob("*.whl"))


def amended(wheel: Path, folder: Path) -> Path:
    """The wheel unpacked, needing what it imports, with `worldsystem` as its only command."""
    run([sys.executable, "-m", "wheel", "unpack", "--dest", str(folder), str(wheel)])
    name = wheel.name.split("-")[0]
    tree = folder / f"{name}-{version()}"
    info = tree / f"{name}-{version()}.dist-info"
    metadata = (info / "METADATA").read_text()
    kept = re.sub(r"^(Requires-Dist|Provides-Extra): .*\n", "", metadata, flags=re.MULTILINE)
    head, separator, text = kept.partition("\n\n")
    lines = "".join(f"\nRequires-Dist: {need}" for need in needs(name))
    (info / "METADATA").write_text(head.rstrip("\n") + lines + (separator or "\n") + text)
    shutil.rmtree(tree / f"{name}-{version()}.data" / "data" / "lib", ignore_errors=True)
    entries = info / "entry_points.txt"
    if name != "worldsystem":  # colcon puts those beside its package; pip would into the PATH
        commands = re.compile(r"\[console_scripts\]\n(?:[^\[].*\n|\n)*")
        entries.write_text(commands.sub("", entries.read_text()))
    return tree


def needs(name: str) -> list[str]:
    """What a package requires: the top one everything that runs, the others what lies below."""
    if name == "worldsystem":
        ours = [package.name for package in packages() if package.name != name]
        return [f"{package}=={version()}" for package in ours] + libraries()
    return [f"{package}=={version()}" for package in below(name)]


def below(name: str) -> list[str]:
    return [MESSAGES] if name == "worldsystem_core" else ["worldsystem_core"]


def libraries() -> list[str]:
    """The requirements that run, without those that build and check."""
    text = (TOOLS / "requirements.txt").read_text().partition("# build and checks")[0]
    ros = (TOOLS / "requirements-ros.txt").read_text().partition("# what their build")[0]
    lines = [line.strip() for line in (text + ros).splitlines()]
    named = [line for line in lines if line and not line.startswith(("#", *BUILD_ONLY))]
    return [*named, *BARE]


def messages_tree(work: Path) -> Path:
    """Our messages and those of the overlay as one wheel's tree, taken from colcon's."""
    name = f"{MESSAGES}-{version()}"
    tree = work / name
    for package in (MESSAGES, *OVERLAY):
        installed = ROOT / "install" / package
        site = installed / "lib" / PYTHON / "site-packages"
        if package == MESSAGES and not (site / package).is_dir():
            raise WheelsError(f"{installed} holds no messages for {PYTHON}; run `make setup`")
        if not (site / package).is_dir():
            raise WheelsError(
                f"{package} was not built here: a sourced ROS has it; wheels are made without one"
            )
        take(installed, package, tree, tree / f"{name}.data" / "data")
    info = tree / f"{name}.dist-info"
    info.mkdir()
    platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
    (info / "WHEEL").write_text(
        "Wheel-Version: 1.0\nGenerator: worldsystem\nRoot-Is-Purelib: false\n"
        f"Tag: {TAG}-{TAG}-{platform}\n"
    )
    ros = "".join(f"\nRequires-Dist: {line}" for line in libraries() if line.startswith("ros-"))
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {MESSAGES}\nVersion: {version()}\n"
        f"Summary: Messages and services of WorldSystem.\nLicense: Apache-2.0{ros}\n"
    )
    shutil.copy(ROOT / "LICENSE", info)
    return tree


def take(installed: Path, package: str, modules: Path, prefix: Path) -> None:
    """Copy a message package's modules, libraries, definitions and index entries."""
    leave = shutil.ignore_patterns(*NOT_NEEDED)
    site = installed / "lib" / PYTHON / "site-packages" / package
    shutil.copytree(site, modules / package, ignore=leave)
    share = installed / "share"
    shutil.copytree(share / package, prefix / "share" / package, ignore=leave)
    shutil.copy(share / package / "package.xml", prefix / "share" / package)
    index = Path("share") / "ament_index"
    shutil.copytree(installed / index, prefix / index, dirs_exist_ok=True)
    shutil.rmtree(prefix / index / "resource_index" / "parent_prefix_path")  # of this machine
    (prefix / "lib").mkdir(exist_ok=True)
    for library in (installed / "lib").glob("*.so*"):
        shutil.copy(library, prefix / "lib")


def pack(tree: Path, out: Path) -> None:
    run([sys.executable, "-m", "wheel", "pack", "--dest-dir", str(out), str(tree)])


def run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise WheelsError(f"{' '.join(command[:5])} … failed:\n{done.stdout}{done.stderr}")


if __name__ == "__main__":
    sys.exit(main())
