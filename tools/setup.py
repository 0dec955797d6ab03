# SPDX-License-Identifier: Apache-2.0
"""Set up everything on a bare machine: `.venv`, ROS 2 from wheels, all libraries, the workspace.

Run by `make demo` and `make test`; returns at once when nothing changed since the last run. With a
ROS 2 (Jazzy or Kilted) already sourced, that ROS is used instead of the wheels. Plain standard
library, because it runs before anything is installed.
"""

from __future__ import annotations

import functools
import hashlib
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import time
import venv
from collections.abc import MutableMapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

import preconditions
from downloads import UnlistedFile, check_downloads, listed, own_folders
from exports import PATHS_OF_ROS, export_lines, only_beside, without_another_ros
from preconditions import SetupError

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
STAMPS = VENV / "stamps"
ENV_FILE = VENV / "worldsystem-env.sh"
LOG = VENV / "setup.log"
BARE_REQUIREMENTS = ROOT / "tools/requirements-bare.txt"
CONSTRAINTS, HASHES = ROOT / "tools/constraints.txt", ROOT / "tools/hashes.txt"
ROS_KNOWN = ("jazzy", "kilted")  # of the Pythons that our libraries are for
WITH_KERNELS = ("core", "mesh", "slam3r", "sim", "segment")
KERNEL_PACKAGES = tuple(f"worldsystem_{name}" for name in WITH_KERNELS)


def main() -> int:
    """Bring the set-up up to date; 0 on success."""
    forget_own_environment(os.environ)
    try:
        with preconditions.alone(ROOT, lambda: say("another set-up works here; waiting")):
            if not step_is_current("all", everything()):
                set_up()
            if "--with-browser" in sys.argv:
                ensure_browser()
            if "--with-test-peers" in sys.argv:
                ensure_test_peers()
    except (SetupError, OSError) as error:  # as of a full disk, or what `sudo make` left
        print(f"setup: {error}", file=sys.stderr)
        return 1
    return 0


def forget_own_environment(environment: MutableMapping[str, str]) -> None:
    """Undo `source tools/env.sh`: what is built here must not be looked for while it is built, and
    our wheels are no ROS that somebody sourced."""
    if environment.get("VIRTUAL_ENV") != str(VENV):
        return
    for name in PATHS_OF_ROS:
        entries = environment.get(name, "").split(os.pathsep)
        kept = [each for each in entries if each and not Path(each).is_relative_to(ROOT)]
        environment[name] = os.pathsep.join(kept)
        if not kept:
            del environment[name]
    if environment.pop("_ROS_WHEELS_BOOTSTRAP_COMPLETE", ""):
        for name in ("ROS_DISTRO", "ROS_VERSION", "ROS_PYTHON_VERSION"):
            environment.pop(name, None)
    del environment["VIRTUAL_ENV"]


def set_up() -> None:
    preconditions.check_place(ROOT)
    preconditions.check_room(ROOT, VENV)
    preconditions.check_python()
    preconditions.check_environment(VENV)
    ros = sourced_ros()
    preconditions.check_machine(ros)
    ensure_system_packages()
    forget_another_place(ros)
    say(f"ROS 2 {ros} is sourced: using it" if ros else "no ROS sourced: using ROS 2 Jazzy wheels")
    run_step("environment", [ROOT / "tools/setup.py"], lambda: make_venv(ros))
    libraries = [*requirement_files(ros), BARE_REQUIREMENTS, CONSTRAINTS]
    run_step("libraries", libraries, lambda: install_libraries(ros))
    run_step("workspace", workspace_files(), lambda: build_workspace(ros))
    write_environment(ros)
    run_step("kernels", kernel_files(), compile_kernels)
    mark_current("all", everything())
    say("ready")


def ensure_system_packages() -> None:
    if missing := preconditions.missing_for_python():
        install_apt(missing, "Python's headers or its ensurepip are missing")
    if missing := preconditions.missing_libraries():
        install_apt(missing, f"libraries that Open3D needs are missing: {', '.join(missing)}")
    if not shutil.which("g++"):
        install_apt(["build-essential"], "no C++ compiler (g++) found")


def ensure_browser() -> None:
    """Headless Chromium is for the web page's test alone; without it that test is skipped."""
    tried = STAMPS / "no-browser"  # some distributions have none as a package
    if preconditions.has_browser() or tried.exists():
        return
    try:
        install_apt(["chromium"], "no Chromium for the web page's test")
    except SetupError as error:
        say(f"{error} (the browser test will be skipped)")
        STAMPS.mkdir(parents=True, exist_ok=True)
        tried.touch()


def ensure_test_peers() -> None:
    """Real senders and servers are for the tests of links alone; without them those are skipped."""
    missing = preconditions.missing_test_peers()
    if not missing:
        return
    try:
        install_apt(missing, "no senders and servers for the tests of links")
    except SetupError as error:
        say(f"{error} (the tests that need them will be skipped)")


def install_apt(packages: list[str], why: str) -> None:
    command = ["apt-get", "install", "-y", "--no-install-recommends", *packages]
    hint = f"{why}; run: sudo {' '.join(command)}"
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise SetupError(hint)
    say(f"{why}: installing {' '.join(packages)}")
    VENV.mkdir(exist_ok=True)
    update_apt()
    run(command, hint, os.environ | {"DEBIAN_FRONTEND": "noninteractive"})


@functools.cache
def update_apt() -> None:
    """Fetch the list of packages, once."""
    run(["apt-get", "update"], "the list of packages cannot be fetched")


def sourced_ros() -> str:
    """The distribution of a ROS 2 whose environment is sourced, or '' for none."""
    if os.environ.get("_ROS_WHEELS_BOOTSTRAP_COMPLETE"):  # ours is forgotten by now
        place = os.environ.get("VIRTUAL_ENV", "another checkout")
        raise SetupError(f"the environment of {place} is sourced; use a new shell")
    distro = os.environ.get("ROS_DISTRO", "")
    if not distro or not os.environ.get("AMENT_PREFIX_PATH"):
        return ""
    if distro not in ROS_KNOWN:
        raise SetupError(
            f"ROS 2 '{distro}' is sourced, and Jazzy or Kilted is needed; source one of those, "
            "or none at all to use the wheels"
        )
    return distro


def forget_another_place(ros: str) -> None:
    """What was made in another place, by another Python or with another ROS is not built upon."""
    places = os.environ["AMENT_PREFIX_PATH"].split(os.pathsep) if ros else [str(VENV)]
    with_another = preconditions.built_with_another_ros(ROOT / "build", places)
    if not with_another and not preconditions.made_elsewhere(VENV):
        return
    say("the checkout was moved, or is set up with another Python or ROS now: making all anew")
    own = [VENV] if (STAMPS / "environment").exists() else []  # else it is somebody's
    for made in (*own, ROOT / "build", ROOT / "install"):
        shutil.rmtree(made, ignore_errors=True)


def make_venv(ros: str) -> None:
    say("making .venv")
    venv.EnvBuilder(with_pip=True, system_site_packages=bool(ros), symlinks=True).create(VENV)


def requirement_files(ros: str) -> list[Path]:
    names = ["requirements.txt"] if ros else ["requirements.txt", "requirements-ros.txt"]
    return [ROOT / "tools" / name for name in names]


def install_libraries(ros: str) -> None:
    say("installing libraries at pinned versions (about 3 minutes the first time)")
    for left in (*VENV.glob("downloads-*"), *VENV.glob("pip-*")):  # of a set-up that was killed
        shutil.rmtree(left, ignore_errors=True)
    place = os.environ.get("TMPDIR") or VENV  # /tmp may be memory, without room for gigabytes
    pip = ["env", f"TMPDIR={place}", str(VENV / "bin/python"), "-m", "pip"]
    pip += ["--disable-pip-version-check"]
    files = [word for path in requirement_files(ros) for word in ("-r", str(path))]
    bare = ["--no-deps", "-r", str(BARE_REQUIREMENTS)]
    if ros:  # whose Python packages are not ours to pin
        run([*pip, "install", *files], "a library could not be installed")
        run([*pip, "install", *bare], "a library could not be installed")
        return
    with TemporaryDirectory(prefix="downloads-", dir=VENV) as folder:
        download = [*pip, "download", "--dest", folder, "-c", str(CONSTRAINTS)]
        run([*download, *files], "a library could not be downloaded")
        run([*download, *bare], "a library could not be downloaded")
        check(Path(folder), own_folders(output([*pip, "config", "list"])))
        install(pip, Path(folder))
    repair_cmake_paths()


def check(downloads: Path, own: list[Path]) -> None:
    try:
        from_own = check_downloads(downloads, listed(HASHES.read_text()), own)
    except UnlistedFile as error:
        raise SetupError(str(error)) from error
    if from_own:
        say(f"not in tools/hashes.txt, but from this machine's own folders: {', '.join(from_own)}")


def install(pip: list[str], downloads: Path) -> None:
    """Wheels first: source archives are built with what is there then."""
    here = [*pip, "install", "--no-index", "--no-deps"]
    wheels = sorted(str(path) for path in downloads.glob("*.whl"))
    sources = sorted(str(path) for path in downloads.iterdir() if path.suffix != ".whl")
    run([*here, *wheels], "a library could not be installed")
    if sources:
        run([*here, "--no-build-isolation", *sources], "a library could not be installed")


def repair_cmake_paths() -> None:
    """The wheels were built under another Python prefix, which CMake would refuse."""
    tag = f"cp{sys.version_info[0]}{sys.version_info[1]}"
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    python = str(VENV / "bin/python")
    numpy_include = output([python, "-c", "import numpy; print(numpy.get_include())"])
    built = f"/opt/python/{tag}-{tag}"
    swaps = {
        f"{built}/include/{version}": sysconfig.get_path("include"),
        f"{built}/lib/{version}/site-packages/numpy/_core/include": numpy_include,
    }
    for path in (VENV / "share").glob("*/cmake/*.cmake"):
        text = path.read_text()
        mended = text
        for old, new in swaps.items():
            mended = mended.replace(old, new)
        if mended != text:
            path.write_text(mended)


def workspace_files() -> list[Path]:
    """Files whose change needs a rebuild; Python sources are linked, so they are not among them."""
    patterns = ("**/package.xml", "**/CMakeLists.txt", "**/*.msg", "**/*.srv", "**/setup.*")
    found = {path for pattern in patterns for path in (ROOT / "src").glob(pattern)}
    return sorted(found | set((ROOT / "launch").glob("*")) | set((ROOT / "config").glob("*")))


def build_workspace(ros: str) -> None:
    say("building the workspace with colcon")
    colcon = [str(VENV / "bin/python"), "-m", "colcon", "--log-base", str(ROOT / "log")]
    build = ["build", "--symlink-install", "--base-paths", str(ROOT / "src")]
    places = ["--build-base", str(ROOT / "build"), "--install-base", str(ROOT / "install")]
    cmake = [
        "--cmake-args",
        f"-DPython3_EXECUTABLE={VENV / 'bin/python'}",
        "-DBUILD_TESTING=OFF",
        "-DCMAKE_BUILD_TYPE=Release",
    ]
    environment = os.environ | ros_environment(ros)
    run([*colcon, *build, *places, *cmake], "the workspace did not build", environment)


def ros_environment(ros: str) -> dict[str, str]:
    """What a sourced ROS would have set, for the wheels."""
    path = {"PATH": f"{VENV / 'bin'}:{os.environ['PATH']}", "VIRTUAL_ENV": str(VENV)}
    if ros:
        return path
    libs = sorted(str(lib) for lib in VENV.glob("lib/python3*/site-packages/ros_*.libs"))
    return path | {
        "AMENT_PREFIX_PATH": str(VENV),
        "CMAKE_PREFIX_PATH": str(VENV),
        "LD_LIBRARY_PATH": ":".join([str(VENV / "lib"), *libs]),
        "ROS_DISTRO": "jazzy",
        "ROS_VERSION": "2",
        "ROS_PYTHON_VERSION": "3",
        "_ROS_WHEELS_BOOTSTRAP_COMPLETE": "1",
    }


def write_environment(ros: str) -> None:
    """Write what `install/local_setup.bash` sets, for `tools/env.sh`."""
    base = os.environ | ros_environment(ros)
    script = shlex.quote(str(ROOT / "install/local_setup.bash"))
    after = output(["bash", "-c", f". {script} && env -0"], base)
    lines = ["# Made by tools/setup.py; sourced by tools/env.sh."]
    lines += [only_beside(ros) if ros else without_another_ros(VENV)]
    lines += export_lines(os.environ, after)
    ENV_FILE.write_text("\n".join(lines) + "\n")


def kernel_files() -> list[Path]:
    found = [path for name in KERNEL_PACKAGES for path in (ROOT / "src" / name).glob("**/*.py")]
    return sorted(found)


def compile_kernels() -> None:
    """The core's first, which the others import; then those side by side, each in its process."""
    say("compiling kernels")
    first, *others = KERNEL_PACKAGES
    compile_package(first)
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        list(pool.map(compile_package, others))


def compile_package(name: str) -> None:
    command = [str(ROOT / "tools/env.sh"), "python", "-m", f"{name}.precompile"]
    log = LOG.with_name(f"setup-{name}.log")  # several write at a time
    run(command, f"the kernels of {name} did not compile", log=log)


def everything() -> list[Path]:
    names = ("setup.py", "downloads.py", "exports.py", "preconditions.py")
    scripts = [ROOT / "tools" / name for name in names]
    libraries = [*requirement_files(""), BARE_REQUIREMENTS]
    pins = [*libraries, CONSTRAINTS, HASHES]
    return [*scripts, *pins, *workspace_files(), *kernel_files()]


def run_step(name: str, inputs: list[Path], action) -> None:  # type: ignore[no-untyped-def]
    if step_is_current(name, inputs):
        return
    start = time.monotonic()
    action()
    mark_current(name, inputs)
    say(f"  {name}: {time.monotonic() - start:.0f} s")


def step_is_current(name: str, inputs: list[Path]) -> bool:
    stamp = STAMPS / name
    kept = all(path.exists() for path in results(name))
    return kept and stamp.exists() and stamp.read_text() == digest(inputs)


def results(step: str) -> list[Path]:
    """What a step made where a person may clean up; the environment's links lead to `build`."""
    built = [ROOT / "install/local_setup.bash", ROOT / "build"]
    return {"workspace": built, "all": [*built, ENV_FILE]}.get(step, [])


def mark_current(name: str, inputs: list[Path]) -> None:
    STAMPS.mkdir(parents=True, exist_ok=True)
    (STAMPS / name).write_text(digest(inputs))


def digest(files: list[Path]) -> str:
    """A hash of the files' contents, the place of the checkout, the Python and the sourced ROS."""
    python = f"{sys.version_info[:2]} {preconditions.own_python().resolve()}"
    seen = hashlib.sha256(f"{ROOT} {python} {os.environ.get('ROS_DISTRO', '')}".encode())
    for path in files:
        seen.update(str(path).encode())
        seen.update(path.read_bytes() if path.is_file() else b"")
    return seen.hexdigest()


def run(
    command: list[str],
    problem: str,
    environment: dict[str, str] | None = None,
    *,
    log: Path | None = None,
) -> None:
    """Run quietly into the log; on failure show its end. Nobody would see a question: its answer
    is the end of the input."""
    path = log or LOG
    with path.open("a") as file:
        file.write(f"$ {' '.join(command)}\n")
        file.flush()
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=environment,
            cwd=ROOT,
        )
    if done.returncode:
        tail = "\n".join(path.read_text(errors="replace").splitlines()[-25:])
        raise SetupError(f"{problem}; the end of {path}:\n{tail}")


def output(command: list[str], environment: dict[str, str] | None = None) -> str:
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise SetupError(f"{shlex.join(command)} failed:\n{done.stderr.strip()}")
    return done.stdout.strip()


def say(text: str) -> None:
    print(f"setup: {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
