# SPDX-License-Identifier: Apache-2.0
"""Charts of paths and errors: transparent, in colours that read on a light and a dark page."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import matplotlib as mpl
import numpy as np
from jaxtyping import Float
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

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
def figure_as_png(width: float, height: float) -> Iterator[tuple[Figure, io.BytesIO]]:
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
    with figure_as_png(10.5, 4.3) as (figure, png):
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
    with figure_as_png(10.5, 2.5) as (figure, png):
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
    with figure_as_png(10.5, 4.3) as (figure, png):
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


def heat_colours(distances: Float[np.ndarray, "v"], highest: float) -> np.ndarray:
    """uint8 (v, 3) colours of distances from 0 to `highest`; farther ones have the last colour."""
    share = np.clip(np.nan_to_num(distances, nan=highest, posinf=highest) / highest, 0.0, 1.0)
    return np.asarray(255 * HEAT(share)[:, :3]).round().astype(np.uint8)


def heat_scale(highest: float, unit: str) -> bytes:
    """The colour bar that belongs to `heat_colours`."""
    with figure_as_png(10.5, 0.65) as (figure, png):
        axes = figure.subplots()
        colours = mpl.cm.ScalarMappable(mpl.colors.Normalize(0.0, highest), HEAT)
        bar = figure.colorbar(colours, cax=axes, orientation="horizontal", extend="max")
        bar.outline.set_visible(False)
        axes.grid(False)
        axes.set_xlabel(f"distance from the true surface [{unit}]")
    return png.getvalue()
