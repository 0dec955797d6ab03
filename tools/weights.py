# SPDX-License-Identifier: Apache-2.0
"""Fetches published weights, after their licence was accepted: `make weights`.

Those of SLAM3R, or with `--da3` those of Depth Anything 3.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from worldsystem_core.errors import FetchError
from worldsystem_slam3r.da3.variants import APACHE, VARIANTS
from worldsystem_slam3r.fetch import Wanted, fetch, sha256_of
from worldsystem_slam3r.published import (
    PUBLISHED_FILES,
    TERMS,
    PublishedFile,
    da3_file,
    da3_terms,
)
from worldsystem_slam3r.weight_files import ENVIRONMENT, weights_folder

_SHA256_DIGITS = 64


def arguments(given: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--accept-licence", action="store_true", help="agree to the licence without being asked"
    )
    parser.add_argument(
        "--da3", choices=tuple(VARIANTS), help="this network of Depth Anything 3 instead of SLAM3R"
    )
    parser.add_argument(
        "--sha256", type=checksum, help="what the file of --da3 must turn out to be"
    )
    parser.add_argument(
        "--folder", type=Path, default=weights_folder(), help="where the files go (%(default)s)"
    )
    parser.add_argument(
        "--origin", default="", help="take <ORIGIN>/<name>.safetensors instead of the hub's files"
    )
    options = parser.parse_args(given)
    if options.sha256 and not options.da3:
        parser.error("--sha256 is for --da3: the checksums of SLAM3R's files are known")
    return options


def checksum(text: str) -> str:
    """A sha256 in hexadecimal; `argparse` tells what is wrong with another."""
    if len(text) != _SHA256_DIGITS or set(text.lower()) - set("0123456789abcdef"):
        raise argparse.ArgumentTypeError(f"'{text}' is no sha256: 64 digits 0-9, a-f")
    return text.lower()


def accepted(options: argparse.Namespace) -> bool:
    """Whether the user agrees to the licence, which is shown in any case.

    Where it allows every use, nothing needs to be agreed to.
    """
    variant = VARIANTS[options.da3] if options.da3 else None
    print(da3_terms(variant) if variant else TERMS)
    if options.accept_licence or (variant is not None and variant.licence == APACHE):
        return True
    if not sys.stdin.isatty():
        what = (
            f'ARGS="--da3 {options.da3} --accept-licence"' if variant else "ARGS=--accept-licence"
        )
        print(f"nothing was fetched: agree with `make weights {what}`")
        return False
    return input("Type yes to agree: ").strip().lower() == "yes"


def files(options: argparse.Namespace) -> tuple[PublishedFile, ...]:
    """What was asked for."""
    return (da3_file(VARIANTS[options.da3]),) if options.da3 else tuple(PUBLISHED_FILES)


def progress(name: str) -> Callable[[int, int], None]:
    """Says each hundredth that has arrived."""
    said = -1

    def say(done_bytes: int, total_bytes: int) -> None:
        nonlocal said
        percent = 100 * done_bytes // max(total_bytes, 1)
        if percent > said:
            said = percent
            print(f"\r{name}: {percent} % of {total_bytes / 1e6:.0f} MB", end="", flush=True)

    return say


def wanted(file: PublishedFile, options: argparse.Namespace) -> Wanted:
    """What to fetch, from the hub or from a mirror."""
    origin = options.origin.rstrip("/")
    url = f"{origin}/{file.name}.safetensors" if origin else file.url
    return Wanted(url, file.size_bytes, file.sha256 or options.sha256 or "")


def told(request: Wanted, target: Path, *, new: bool) -> str:
    """What became of a file; the checksum of one for which none was known."""
    if request.sha256:
        return f"{target}: " + ("fetched and checked" if new else "already there, checked")
    done = "fetched, as long as the server said" if new else "already there"
    return f"{target}: {done}; no checksum is known for it, its sha256 is {sha256_of(target)}"


def main(given: list[str]) -> int:
    """Fetch what is not there yet; 0 when all files are there and whole."""
    options = arguments(given)
    if not accepted(options):
        return 1
    try:
        for file in files(options):
            target = options.folder / f"{file.name}.safetensors"
            request = wanted(file, options)
            new = fetch(request, target, on_progress=progress(file.name))
            print("\n" + told(request, target, new=new))
    except FetchError as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    if options.folder != weights_folder():
        print(f"set {ENVIRONMENT}={options.folder} so that they are found")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
