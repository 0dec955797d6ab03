# SPDX-License-Identifier: Apache-2.0
"""Remake the README's figures from benchmarks/results/*.json; `--check` only says if they are old.

Every figure stands with its spread, and every file with machine, commit and command. A comparison
(`_vs_` in its id) below 1 is one that we lose, and is marked as such.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
BEGIN, END = "<!-- figures -->", "<!-- /figures -->"


def main(arguments: list[str] | None = None) -> int:
    """Rewrite the block, or with `--check` return 1 when it is stale."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; 1 when stale")
    parser.add_argument("--readme", type=Path, default=ROOT / "README.md")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results")
    options = parser.parse_args(arguments)
    old = options.readme.read_text(encoding="utf-8")
    new = with_figures(old, figures(options.results))
    if new == old:
        return 0
    if options.check:
        print(f"{options.readme.name}: the figures are stale; run `make tables`", file=sys.stderr)
        return 1
    options.readme.write_text(new, encoding="utf-8")
    return 0


def with_figures(readme: str, block: str) -> str:
    """`readme` with what stands between the two markers replaced; raises `ValueError`."""
    head, begin, rest = readme.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the README needs the markers {BEGIN} and {END}")
    return f"{head}{BEGIN}\n{block}{END}{tail}"


def figures(results: Path) -> str:
    """One table for each result file, in the order of their names."""
    tables = [_table(path) for path in sorted(results.glob("*.json"))]
    return "\n".join(tables) if tables else "No benchmark has been run yet.\n"


def _table(path: Path) -> str:
    content = json.loads(path.read_text(encoding="utf-8"))
    lines = [
        f"**{path.stem}**: {content['machine']}; commit `{content['commit']}`, {content['date']}; "
        f"`{content['command']}`",
        "",
        "| figure | value | lowest … highest | of | |",
        "|---|---:|---|---:|---|",
        *(_row(result) for result in content["results"]),
    ]
    return "\n".join(lines) + "\n"


def _row(result: dict[str, Any]) -> str:  # one entry of a result file, as harness.py writes it
    value, unit = result["value"], result["unit"]
    amount = f"{number(value)} {unit.strip('-')}".strip()
    spread = " … ".join(number(end) for end in result["spread"])
    note = result["note"].replace("|", "\\|")
    if is_behind(result):
        amount, note = f"**{amount}**", f"**behind**; {note}"
    return f"| `{result['id']}` | {amount} | {spread} | {result['n']} | {note} |"


def is_behind(result: dict[str, Any]) -> bool:
    """Whether the figure compares us with something else, and that is better."""
    return "_vs_" in result["id"] and result["unit"] == "x" and result["value"] < 1.0


def number(value: float) -> str:
    """Three significant digits, without an exponent; `–` for what could not be measured."""
    if not math.isfinite(value):
        return "–"
    if value == 0:
        return "0"
    decimals = max(0, 2 - math.floor(math.log10(abs(value))))
    text = f"{value:.{decimals}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


if __name__ == "__main__":
    sys.exit(main())
