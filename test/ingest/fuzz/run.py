# SPDX-License-Identifier: Apache-2.0
"""Fuzz the targets, guided by coverage: `python run.py --seconds 60 [--only TARGET]`.

Each begins with the corpus beside this file. A sequence of bytes that breaks a law is written to
the folder given by `--found` and the exit code is not 0.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=60, help="for all targets together")
    parser.add_argument("--only", help="one target, fuzzed in this process")
    parser.add_argument("--found", type=Path, default=Path(tempfile.gettempdir()))
    options = parser.parse_args()
    try:
        import atheris
    except ImportError:
        print("fuzzing needs atheris: pip install atheris", file=sys.stderr)
        return 2
    if options.only:
        return _fuzz(atheris, options.only, options.seconds, options.found)
    from targets import TARGETS

    share_s = max(1, options.seconds // len(TARGETS))
    command = [sys.executable, __file__, "--found", str(options.found), "--seconds", str(share_s)]
    codes = [subprocess.run([*command, "--only", name]).returncode for name in TARGETS]
    return max(codes)


def _fuzz(atheris, name: str, seconds: int, found: Path) -> int:
    with atheris.instrument_imports(include=["worldsystem_core.wire", "worldsystem_ingest"]):
        from targets import TARGETS
    with tempfile.TemporaryDirectory() as grown:
        arguments = [
            sys.argv[0],
            f"-max_total_time={seconds}",
            "-max_len=4096",
            "-timeout=10",
            "-rss_limit_mb=2048",
            "-print_final_stats=1",
            f"-artifact_prefix={found}/{name}-",
            grown,
            str(HERE / "corpus"),
        ]
        atheris.Setup(arguments, TARGETS[name])
        atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main())
