# SPDX-License-Identifier: Apache-2.0
"""The report's charts: transparent, in colours that read on a light and on a dark page."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import matplotlib as mpl
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from worldsystem.report.record import RunSample
from worldsystem_core.latency import BUCKETS_S, percentile_s

ESTIMATE = "#3b82f6"
TRUTH = "#9ca3af"
ERROR = "#f59e0b"
GOOD = "#10b981"
INK = "#7c8594"
STYLE = {
    "font.size": 9.5,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "axes.grid": True,
    "grid.color": INK,
    "grid.alpha": 0.22,
    "grid.linewidth": 0.6,
    "xtick.color": INK,
    "ytick.color": INK,
    "text.color": INK,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
}
HEAT = LinearSegmentedColormap.from_list(
    "near_to_far", ["#4fb3a5", "#9fce9f", "#f0cf65", "#e8793f", "#a3202b"]
)


@contextmanager
def _figure(width: float, height: float) -> Iterator[tuple[Figure, io.BytesIO]]:
    """A figure without a window; its PNG is in the buffer after the block."""
    png = io.BytesIO()
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(figure)
        yield figure, png
        figure.savefig(png, format="png", dpi=144, transparent=True)


def trajectory_chart(
    estimate: Float[np.ndarray, "n 3"],
    truth: Float[np.ndarray, "m 3"] | None,
    unit: str,
) -> bytes:
    """The path from above and from the side; columns are (widest, across, up)."""
    with _figure(10.5, 4.3) as (figure, png):
        plan, side = figure.subplots(1, 2)
        for axes, column, title in ((plan, 1, "from above"), (side, 2, "from the side")):
            if truth is not None:
                axes.plot(
                    truth[:, 0], truth[:, column], color=TRUTH, lw=5, alpha=0.55, label="truth"
                )
            axes.plot(estimate[:, 0], estimate[:, column], color=ESTIMATE, lw=1.3, label="estimate")
            if len(estimate):
                axes.plot(*estimate[0, [0, column]], "o", color=ESTIMATE, mfc="white", ms=7)
                axes.plot(*estimate[-1, [0, column]], "o", color=ESTIMATE, ms=8)
            axes.set_title(title)
            axes.set_aspect("equal", adjustable="datalim")
            axes.set_xlabel(f"[{unit}]")
        handles, labels = plan.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper right", ncols=2)
    return png.getvalue()


def error_chart(t_s: Sequence[float], errors: Float[np.ndarray, "n"], unit: str) -> bytes:
    """Distance from the true path over time."""
    with _figure(10.5, 2.5) as (figure, png):
        axes = figure.subplots()
        axes.fill_between(t_s, errors, color=ERROR, alpha=0.25, lw=0)
        axes.plot(t_s, errors, color=ERROR)
        rms = float(np.sqrt(np.mean(errors**2)))
        axes.axhline(rms, color=INK, lw=1, ls="--")
        axes.set_ylim(bottom=0)
        axes.margins(x=0)
        axes.set_title(
            f"distance from the true path [{unit}] over time [s]; RMS {rms:.3g} (dashed)"
        )
    return png.getvalue()


def error_path_chart(
    positions: Float[np.ndarray, "n 3"], errors: Float[np.ndarray, "n"], unit: str
) -> bytes:
    """The path from above and from the side, coloured by its distance from the true one."""
    with _figure(10.5, 4.3) as (figure, png):
        highest = max(float(errors.max(initial=0.0)), 1e-12)
        scale = mpl.colors.Normalize(0.0, highest)
        for axes, column, title in zip(
            figure.subplots(1, 2), (1, 2), ("from above", "from the side"), strict=True
        ):
            axes.scatter(
                positions[:, 0], positions[:, column], c=errors, cmap=HEAT, norm=scale, s=9
            )
            axes.set_title(title)
            axes.set_aspect("equal", adjustable="datalim")
            axes.set_xlabel(f"[{unit}]")
        bar = figure.colorbar(mpl.cm.ScalarMappable(scale, HEAT), ax=figure.axes, shrink=0.8)
        bar.outline.set_visible(False)
        bar.set_label(f"distance from the true path [{unit}]")
    return png.getvalue()


def latency_chart(counts_by_name: dict[str, list[int]]) -> bytes:
    """One histogram a name over the shared logarithmic buckets, with p50 and p95 marked."""
    names = [name for name, counts in counts_by_name.items() if sum(counts)]
    edges_ms = 1e3 * np.array([BUCKETS_S[0] * 0.83, *BUCKETS_S, BUCKETS_S[-1] * 1.2])
    with _figure(10.5, 0.6 + 1.75 * max(1, len(names))) as (figure, png):
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
    with _figure(10.5, 4.2) as (figure, png):
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


def heat_colours(distances: Float[np.ndarray, "v"], highest: float) -> np.ndarray:
    """uint8 (v, 3) colours of distances from 0 to `highest`; farther ones have the last colour."""
    share = np.clip(np.nan_to_num(distances, nan=highest, posinf=highest) / highest, 0.0, 1.0)
    return np.asarray(255 * HEAT(share)[:, :3]).round().astype(np.uint8)


def heat_scale(highest: float, unit: str) -> bytes:
    """The colour bar that belongs to `heat_colours`."""
    with _figure(10.5, 0.65) as (figure, png):
        axes = figure.subplots()
        colours = mpl.cm.ScalarMappable(mpl.colors.Normalize(0.0, highest), HEAT)
        bar = figure.colorbar(colours, cax=axes, orientation="horizontal", extend="max")
        bar.outline.set_visible(False)
        axes.grid(False)
        axes.set_xlabel(f"distance from the true surface [{unit}]")
    return png.getvalue()


def _short(number: float) -> str:
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if abs(number) >= size:
            return f"{number / size:g}{letter}"
    return f"{number:g}"
