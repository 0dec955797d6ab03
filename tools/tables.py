# SPDX-License-Identifier: Apache-2.0
"""Remake the figures of README.md and docs/figures.md from benchmarks/results/*.json.

The README shows those of benchmarks/targets.toml beside what is asked of them; docs/figures.md all,
each with its spread, and every file with machine, commit and command. A comparison (`_vs_` in its
id) below 1 is one that we lose, and is marked as such. With `--check` nothing is written: the exit
code says whether a page is old. Nor is anything written where a figure of the README is missing.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
TARGETS = ROOT / "benchmarks" / "targets.toml"
BEGIN, END = "<!-- figures -->", "<!-- /figures -->"

Figure = dict[str, Any]  # numbers, texts and lists
"""One entry of a result file, as harness.py writes it."""


class FigureMissing(Exception):
    """No result has a figure that the README shows; the message names both and says what to do."""

    def __init__(self, id: str, file: Path, what: str = "") -> None:
        there = what or ("does not have it" if file.is_file() else "is not there")
        super().__init__(
            f"the README shows the figure '{id}' of {file}, which {there}; measure it again with "
            "what its benchmark reads (WORLDSYSTEM_DATA: folder of recordings, "
            "WORLDSYSTEM_GOLDEN: folder of golden numbers; without them figures are left out), or "
            f"take back the last result: git checkout benchmarks/results/{file.name}"
        )


def main(arguments: list[str] | None = None) -> int:
    """Rewrite both blocks; 1 when a figure is missing, or with `--check` when one is stale."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; 1 when stale")
    check = parser.parse_args(arguments).check
    targets = tomllib.loads(TARGETS.read_text(encoding="utf-8"))
    try:
        blocks = {
            ROOT / "README.md": headlines(targets["room"], RESULTS),
            ROOT / "docs" / "figures.md": figures(RESULTS),
        }
    except FigureMissing as error:
        print(error, file=sys.stderr)
        return 1
    stale = [page for page, block in blocks.items() if renew(page, block, check=check)]
    for page in stale if check else ():
        print(f"{page.name}: the figures are stale; run `make tables`", file=sys.stderr)
    return int(check and bool(stale))


def renew(page: Path, block: str, *, check: bool) -> bool:
    """Whether the page's figures were old; they are not any more, but with `check`."""
    old = page.read_text(encoding="utf-8")
    new = with_figures(old, block)
    if new != old and not check:
        page.write_text(new, encoding="utf-8")
    return new != old


def with_figures(page: str, block: str) -> str:
    """`page` with what stands between the two markers replaced; raises `ValueError`."""
    head, begin, rest = page.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page needs the markers {BEGIN} and {END}")
    return f"{head}{BEGIN}\n{block}{END}{tail}"


def headlines(rooms: list[dict[str, Any]], results: Path) -> str:  # as read from TOML
    """A table for each room; raises `FigureMissing` for a figure that no result has."""
    return "\n".join(_room(room, results) for room in rooms)


def _room(room: dict[str, Any], results: Path) -> str:  # as read from TOML
    lines = [f"**{room['name']}**", "", "| | | measured | asked |", "|---|---|---:|---:|"]
    for row in room["figures"]:
        lines.append(_headline(row, _figure(row["id"], results / f"{row['file']}.json")))
    return "\n".join(lines) + "\n"


def _figure(id: str, file: Path) -> Figure:
    content = _read(file) if file.is_file() else {"results": []}
    results: list[Figure] = content["results"]
    measured = {result["id"]: result for result in results}
    if id not in measured:
        raise FigureMissing(id, file)
    # one that a run of some parts has kept says itself what it is of
    if "QUICK=1" in (measured[id].get("of") or content.get("command", "")):
        raise FigureMissing(id, file, "is of a quick run")
    return measured[id]


def _headline(row: dict[str, Any], figure: Figure) -> str:
    asked = row.get("asked", "")
    if row.get("worst"):
        figure = at_its_worst(figure, asked)
    shown = amount(figure)
    if asked and not meets(figure["value"], asked):
        shown, asked = f"**{shown}**", f"{asked}, missed"
    link = f"[`{row['id']}`](docs/figures.md#{row['file']})"
    return f"| {row['says']} | {link} | {shown} | {asked} |"


def at_its_worst(figure: Figure, asked: str) -> Figure:
    """The figure with the worst of its runs in place of the one in the middle."""
    runs = [figure["value"], *figure["spread"]]
    if not all(map(math.isfinite, runs)):
        return figure | {"value": math.nan}
    return figure | {"value": min(runs) if asked.startswith("≥") else max(runs)}


def meets(value: float, asked: str) -> bool:
    """Whether the digits that are shown are what is asked, as `≤ 5`."""
    if not math.isfinite(value):
        return False
    sign, _, bound = asked.partition(" ")
    shown, wanted = float(number(value)), float(bound)
    return {"≤": shown <= wanted, "≥": shown >= wanted, "=": shown == wanted}[sign]


def figures(results: Path) -> str:
    """One table for each result file, in the order of their names."""
    tables = [_table(path) for path in sorted(results.glob("*.json"))]
    return "\n".join(tables) if tables else "No benchmark has been run yet.\n"


def _table(path: Path) -> str:
    content = _read(path)
    lines = [
        f"## {path.stem}",
        "",
        f"{content['machine']}; commit `{content['commit']}`, {content['date']}; "
        f"`{content['command']}`",
        "",
        "| figure | value | lowest … highest | of | |",
        "|---|---:|---|---:|---|",
        *(_row(result) for result in content["results"]),
    ]
    return "\n".join(lines) + "\n"


def _row(figure: Figure) -> str:
    shown, note = amount(figure), figure["note"].replace("|", "\\|")
    if figure.get("of"):
        note = "; ".join(filter(None, (note, figure["of"])))
    spread = " … ".join(number(end) for end in figure["spread"])
    if is_behind(figure):
        shown, note = f"**{shown}**", f"**behind**; {note}"
    return f"| `{figure['id']}` | {shown} | {spread} | {figure['n']} | {note} |"


def is_behind(figure: Figure) -> bool:
    """Whether the figure compares us with something else, and that is better."""
    return "_vs_" in figure["id"] and figure["unit"] == "x" and figure["value"] < 1.0


def amount(figure: Figure) -> str:
    """The value with its unit."""
    return f"{number(figure['value'])} {figure['unit'].strip('-')}".strip()


def number(value: float) -> str:
    """Three significant digits, without an exponent; `–` for what could not be measured."""
    if not math.isfinite(value):
        return "–"
    if value == 0:
        return "0"
    decimals = max(0, 2 - math.floor(math.log10(abs(value))))
    text = f"{value:.{decimals}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _read(path: Path) -> dict[str, Any]:  # as read from JSON
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


if __name__ == "__main__":
    sys.exit(main())
