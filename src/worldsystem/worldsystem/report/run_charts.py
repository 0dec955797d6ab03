# SPDX-License-Identifier: Apache-2.0
"""Charts of how a run went: its latencies, its speed, and how its map grew."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from worldsystem.charts.figures import ERROR, ESTIMATE, GOOD, figure_as_png
from worldsystem.report.record import RunSample
from worldsystem_core.latency import BUCKETS_S, percentile_s


def latency_chart(counts_by_name: dict[str, list[int]]) -> bytes:
    """One histogram a name over the shared logarithmic buckets, with p50 and p95 marked."""
    names = [name for name, counts in counts_by_name.items() if sum(counts)]
    edges_ms = 1e3 * np.array([BUCKETS_S[0] * 0.83, *BUCKETS_S, BUCKETS_S[-1] * 1.2])
    with figure_as_png(10.5, 0.6 + 1.75 * max(1, len(names))) as (figure, png):
        rows = figure.subplots(max(1, len(names)), 1, sharex=True, squeeze=False)[:, 0]
        for axes, name in zip(rows, names, strict=False):
            counts = np.array(counts_by_name[name])
            share = 100.0 * counts / counts.sum()
            axes.bar(
                edges_ms[:-1], share, np.diff(edges_ms), align="edge", color=ESTIMATE, alpha=0.75
            )
            _mark_percentiles(axes, counts_by_name[name])
            axes.set_title(f"{name.replace('_', ' ')}: {counts.sum():,} measured")
            axes.set_ylabel("share [%]")
        used = np.nonzero(np.sum([counts_by_name[name] for name in names], axis=0))[0]
        rows[-1].set_xscale("log")
        if len(used):
            rows[-1].set_xlim(edges_ms[max(used[0] - 3, 0)], edges_ms[min(used[-1] + 5, 61)])
        rows[-1].xaxis.set_major_formatter(lambda x, _: f"{x:g}")
        rows[-1].set_xlabel("latency [ms]")
    return png.getvalue()


def _mark_percentiles(axes: Axes, counts: list[int]) -> None:
    for percent, style, side in ((50.0, ":", "right"), (95.0, "--", "left")):
        at_ms = 1e3 * percentile_s(counts, percent)
        if np.isfinite(at_ms):
            axes.axvline(at_ms, color=ERROR, lw=1.4, ls=style)
            label = f" p{percent:g}  {at_ms:,.0f} ms "
            where = (at_ms, 0.98)
            across = axes.get_xaxis_transform()
            axes.annotate(label, where, xycoords=across, va="top", ha=side, color=ERROR)


def throughput_chart(samples: Sequence[RunSample]) -> bytes:
    """Speed, size of the map, and latency over the run."""
    t_s = [sample.t_s for sample in samples]
    panels: list[tuple[str, Sequence[float], str]] = [
        ("frames per second", [sample.fps for sample in samples], ESTIMATE),
        ("keyframes", [sample.keyframes for sample in samples], GOOD),
        ("triangles", [sample.triangles for sample in samples], GOOD),
        ("glass to map [s]", [sample.latency_s for sample in samples], ERROR),
    ]
    shown = [panel for panel in panels if np.isfinite(panel[1]).any()]
    with figure_as_png(10.5, 4.2) as (figure, png):
        grid = figure.subplots(2, 2, sharex=True).ravel()
        for axes, (title, values, colour) in zip(grid, shown, strict=False):
            axes.fill_between(t_s, values, color=colour, alpha=0.15, lw=0)
            axes.plot(t_s, values, color=colour)
            axes.set_title(title)
            axes.set_ylim(bottom=0)
            axes.margins(x=0)
            axes.yaxis.set_major_formatter(lambda y, _: _short(y))
        for axes in grid[len(shown) :]:
            axes.set_visible(False)
        for axes in grid[max(0, len(shown) - 2) : len(shown)]:
            axes.tick_params(labelbottom=True)
            axes.set_xlabel("time [s]")
    return png.getvalue()


def _short(number: float) -> str:
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if abs(number) >= size:
            return f"{number / size:g}{letter}"
    return f"{number:g}"
