# SPDX-License-Identifier: Apache-2.0
"""Fetches the published SLAM3R weights, after their licence was accepted: `make weights`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from worldsystem_core.errors import FetchError
from worldsystem_slam3r.fetch import Wanted, fetch
from worldsystem_slam3r.published import PUBLISHED_FILES, TERMS, PublishedFile
from worldsystem_slam3r.weight_files import ENVIRONMENT, weights_folder


def arguments(given: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--accept-licence", action="store_true", help="agree to CC BY-NC-SA 4.0 without being asked"
    )
    parser.add_argument(
        "--folder", type=Path, default=weights_folder(), help="where the files go (%(default)s)"
    )
    parser.add_argument(
        "--origin", default="", help="take <ORIGIN>/<name>.safetensors instead of the hub's files"
    )
    return parser.parse_args(given)


def accepted(options: argparse.Namespace) -> bool:
    """Whether the user agrees to the licence, which is shown in any case."""
    print(TERMS)
    if options.accept_licence:
        return True
    if not sys.stdin.isatty():
        print("nothing was fetched: agree with `make weights ARGS=--accept-licence`")
        return False
    return input("Type yes to agree: ").strip().lower() == "yes"


def progress(name: str) -> Callable[[int, int], None]:
    """Says each hundredth that has arrived."""
    said = -1

    def say(done_bytes: int, total_bytes: int) -> None:
        nonlocal said
        percent = 100 * done_bytes // total_bytes
        if percent > said:
            said = percent
            print(f"\r{name}: {percent} % of {total_bytes / 1e6:.0f} MB", end="", flush=True)

    return say


def wanted(file: PublishedFile, origin: str) -> Wanted:
    """What to fetch, from the hub or from a mirror."""
    url = f"{origin.rstrip('/')}/{file.name}.safetensors" if origin else file.url
    return Wanted(url, file.size_bytes, file.sha256)


def main(given: list[str]) -> int:
    """Fetch what is not there yet; 0 when all files are there and whole."""
    options = arguments(given)
    if not accepted(options):
        return 1
    try:
        for file in PUBLISHED_FILES:
            target = options.folder / f"{file.name}.safetensors"
            request = wanted(file, options.origin)
            new = fetch(request, target, on_progress=progress(file.name))
            print(f"\n{target}: " + ("fetched and checked" if new else "already there, checked"))
    except FetchError as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    if options.folder != weights_folder():
        print(f"set {ENVIRONMENT}={options.folder} so that they are found")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
