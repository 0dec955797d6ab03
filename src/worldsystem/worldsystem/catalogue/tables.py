# SPDX-License-Identifier: Apache-2.0
"""Runs as text: one line each, one in full, several side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from worldsystem.catalogue.runs import Run

_FIGURES = ("ate_percent", "mesh_fscore", "fps", "glass_to_map_p95_ms", "tracked_percent")


def listing(runs: list[Run]) -> str:
    """A line for each run: when, how long, how large, what it was made of, how well it went."""
    if not runs:
        return "no runs yet; `make demo` makes one"
    width = max(len(run.name) for run in runs)
    lines = []
    for run in runs:
        if run.going_on or run.unfinished:
            how = _pending(run)
        else:
            tracked = run.figures.get("tracked_percent")
            share = "" if tracked is None else f"{tracked:4.0f} % tracked, "
            how = f"{share}{run.keyframes} keyframes, {run.source}"
        lines.append(f"{run.name:{width}s}  {run.duration_s:6.0f} s  {_size(run):>9s}  {how}")
    return "\n".join(lines)


def details(run: Run) -> str:
    """Everything known of one run."""
    started = f"{run.started:%Y-%m-%d %H:%M:%S} UTC"
    if run.unfinished:
        known = [("folder", run.folder), ("started", started), ("size", _size(run))]
        return _lines([*known, ("state", _pending(run))])
    rows: list[tuple[str, object]] = [
        ("folder", run.folder),
        ("started", started),
        ("duration", f"{run.duration_s:.1f} s"),
        ("source", run.source),
        ("back-end", run.backend),
        ("commit", run.commit),
        ("size", _size(run)),
        ("keyframes", run.keyframes),
        ("triangles", run.triangles),
        *((name, f"{value:.4g}") for name, value in run.figures.items()),
        *((f"dropped {reason}", count) for reason, count in run.dropped.items()),
    ]
    return _lines(rows)


def _lines(rows: Iterable[tuple[str, object]]) -> str:
    return "\n".join(f"{name:24s} {value}" for name, value in rows)


def comparison(runs: list[Run]) -> str:
    """Figures side by side; the last column is the last run's change against the first."""
    readers: dict[str, Callable[[Run], float | None]] = {
        "duration_s": _of_summary(lambda run: run.duration_s),
        "keyframes": _of_summary(lambda run: float(run.keyframes)),
        "triangles": _of_summary(lambda run: float(run.triangles)),
        **{name: _figure(name) for name in _FIGURES},
        "dropped": _of_summary(lambda run: float(sum(run.dropped.values()))),
    }
    width = max(12, *(len(run.name) for run in runs))
    lines = [f"{'':22s}" + "".join(f"{run.name:>{width + 2}s}" for run in runs) + "    change"]
    for name, read in readers.items():
        values = [read(run) for run in runs]
        cells = "".join(f"{_number(value):>{width + 2}s}" for value in values)
        lines.append(f"{name:22s}{cells}{_change(values[0], values[-1]):>10s}")
    lines += [f"{run.name}: {_pending(run)}" for run in runs if run.unfinished]
    return "\n".join(lines)


def _pending(run: Run) -> str:
    """Why a run has no summary yet, or never will."""
    if run.going_on:
        return "being recorded now"
    return "unfinished: no summary; try `worldsystem bag recover` on its bag"


def _of_summary(read: Callable[[Run], float]) -> Callable[[Run], float | None]:
    """What a run without a summary does not tell."""
    return lambda run: None if run.unfinished else read(run)


def _figure(name: str) -> Callable[[Run], float | None]:
    return lambda run: run.figures.get(name)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"


def _change(first: float | None, last: float | None) -> str:
    if first is None or last is None or first == 0:
        return ""
    return f"{100 * (last / first - 1):+.1f} %"


def _size(run: Run) -> str:
    return f"{run.size_bytes / 1e6:.1f} MB"
