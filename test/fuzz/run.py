# SPDX-License-Identifier: Apache-2.0
"""Fuzz the targets, guided by coverage: `python run.py --seconds 60 [--only TARGET …]`.

Each begins with its folder in `corpus`. Bytes that break a law are written to the folder given by
`--found`, and the exit code is not 0. `--grown FOLDER` keeps what reaches new code, so that the
next run goes on from there; `--minimise` makes the corpus of that and of itself, the least that
reaches as much. `--results FILE` adds time and executions to an account as benchmarks have them.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from account import Run, add_to_account
from targets import CORPUS, TARGETS

_LONGEST_S = 10
_MOST_MB = 2048
_STARTING_S = 300  # where the processor is busy with other things
_STATISTICS = {
    "executions": re.compile(r"stat::number_of_executed_units: *(\d+)"),
    "counters": re.compile(r"cov: (\d+)"),
    "features": re.compile(r"ft: (\d+)"),
}


@dataclass(frozen=True)
class Folders:
    """Where runs keep what reaches new code, and where they put what breaks a law."""

    grown: Path
    found: Path

    def of(self, name: str) -> Path:
        """The first for one target."""
        folder = self.grown / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=60, help="for all targets together")
    parser.add_argument("--only", nargs="*", choices=list(TARGETS), default=list(TARGETS))
    parser.add_argument("--found", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--grown", type=Path, help="kept; default: a folder of this run")
    parser.add_argument("--minimise", action="store_true")
    parser.add_argument("--results", type=Path)
    parser.add_argument("--here", choices=list(TARGETS), help=argparse.SUPPRESS)
    options, rest = parser.parse_known_args()
    if options.here:
        return _fuzz(options.here, rest)
    try:
        import atheris  # noqa: F401  (only whether it is there)
    except ImportError:
        print("fuzzing needs atheris: pip install atheris", file=sys.stderr)
        return 2
    with ExitStack() as stack:
        grown = options.grown or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folders = Folders(grown, options.found)
        if options.minimise:
            return max(_minimised(name, folders) for name in options.only)
        share_s = max(1, options.seconds // len(options.only))
        return max(_searched(name, share_s, folders, options.results) for name in options.only)


def _searched(name: str, seconds: int, folders: Folders, results: Path | None) -> int:
    """Fuzz one target in a process of its own, and say in a line what came of it."""
    arguments = [
        f"-max_total_time={seconds}",
        f"-max_len={TARGETS[name].longest_bytes}",
        f"-timeout={_LONGEST_S}",
        f"-rss_limit_mb={_MOST_MB}",
        "-print_final_stats=1",
        f"-artifact_prefix={folders.found}/{name}-",
        str(folders.of(name)),
        str(CORPUS / name),
    ]
    done = _started(name, arguments, seconds + _STARTING_S)
    numbers = {key: _last(pattern, done.stderr) for key, pattern in _STATISTICS.items()}
    run = Run(name, seconds, numbers["executions"], numbers["counters"], numbers["features"])
    print(run, flush=True)
    if done.returncode:
        print(done.stdout[-1000:], done.stderr[-4000:], sep="\n", file=sys.stderr)
    elif results is not None:
        add_to_account(run, results)
    return done.returncode


def _minimised(name: str, folders: Folders) -> int:
    """Make the corpus of what it is and of what has grown, without what reaches nothing more."""
    corpus = CORPUS / name
    with tempfile.TemporaryDirectory() as least:
        longest = f"-max_len={TARGETS[name].longest_bytes}"
        arguments = ["-merge=1", longest, least, str(corpus), str(folders.of(name))]
        done = _started(name, arguments, 600)
        kept = list(Path(least).iterdir())
        if done.returncode or not kept:
            print(done.stderr[-4000:], file=sys.stderr)
            return done.returncode or 1
        known = {path.read_bytes(): path.name for path in corpus.iterdir()}
        named = [path for path in corpus.iterdir() if not _is_hash(path.name)]
        for path in corpus.iterdir():
            if path not in named:
                path.unlink()
        for path in kept:
            if known.get(path.read_bytes(), path.name) == path.name:
                shutil.copy(path, corpus / path.name)
        sizes = [path.stat().st_size for path in corpus.iterdir()]
        print(f"{name:14} {len(sizes)} files, {sum(sizes)} bytes")
    return 0


def _is_hash(name: str) -> bool:
    """Whether libFuzzer gave that name; seeds, and what once broke a law, have one in words."""
    return re.fullmatch(r"[0-9a-f]{40}", name) is not None


def _started(name: str, arguments: list[str], timeout_s: float) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, __file__, "--here", name, *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, errors="replace", timeout=timeout_s
    )


def _fuzz(name: str, arguments: list[str]) -> int:
    """In this process, which libFuzzer ends."""
    import atheris

    target = TARGETS[name]
    with atheris.instrument_imports(include=list(target.guided_by)):
        law = target.law(name)
    ourselves = f"{sys.executable} {__file__} --here {name}"  # run again through a shell to merge
    atheris.Setup([ourselves, *arguments], law)
    atheris.Fuzz()
    return 0


def _last(pattern: re.Pattern[str], text: str) -> int:
    return int(next(reversed(pattern.findall(text)), 0))


if __name__ == "__main__":
    sys.exit(main())
