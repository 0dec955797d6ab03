# SPDX-License-Identifier: Apache-2.0
"""The arithmetic of a soak: what its samples say of growth and of slowing down."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from harness import Benchmark
from soak_samples import Sample

WARM_UP_SHARE = 0.1
MOST_SLOPE_PERCENT_PER_H, LEAST_FPS_RATIO, MOST_UNEXPLAINED = 0.5, 0.95, 0.0
NAN = float("nan")
Key = TypeVar("Key", int, tuple[int, str])
BLOCK_S = 300.0
"""Memory goes up and down with each lap (60 s) and with the pages handed back (20 s): five minutes
are several of both."""


@dataclass(frozen=True)
class Slope:
    """Growth by least squares [% of the line's value at its beginning, an hour].

    The standard error is that of the line through the means of blocks of `BLOCK_S`: samples near
    each other are not independent, and as if they were it would be several times too small.
    """

    percent_per_h: float = NAN
    error_percent_per_h: float = NAN
    begin: float = NAN
    end: float = NAN
    blocks: int = 0  # that the error is of; 0: of single samples


def slope(t_s: Sequence[float], values: Sequence[float]) -> Slope:
    """The line through `values`; NaN for fewer than three, or where all are of one moment."""
    t_h, y = np.asarray(t_s, dtype=float) / 3600.0, np.asarray(values, dtype=float)
    known = np.isfinite(y)
    t_h, y = t_h[known], y[known]
    if len(y) < 3 or np.ptp(t_h) == 0:
        return Slope()
    per_h, _ = _line(t_h, y)
    means = _blocks(t_h, y)
    error = _line(*(means or (t_h, y)))[1]
    blocks = len(means[0]) if means else 0
    line = y.mean() + per_h * (t_h - t_h.mean())
    begin, end = float(line[0]), float(line[-1])
    if np.ptp(y) == 0:  # and not what rounding makes of it
        return Slope(0.0, 0.0, begin, end, blocks)
    if begin <= 0:
        return Slope(begin=begin, end=end)
    return Slope(100.0 * per_h / begin, 100.0 * error / begin, begin, end, blocks)


def _line(t_h: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Slope by least squares and its standard error, NaN for two points; of independent `y`."""
    spread = float(((t_h - t_h.mean()) ** 2).sum())
    per_h = float(((t_h - t_h.mean()) * (y - y.mean())).sum()) / spread
    residuals = y - y.mean() - per_h * (t_h - t_h.mean())
    free = len(y) - 2
    return per_h, math.sqrt(float((residuals**2).sum()) / free / spread) if free > 0 else NAN


def _blocks(t_h: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """The means of what lies within `BLOCK_S`; None where that makes fewer than three."""
    block = ((t_h - t_h[0]) * 3600.0 // BLOCK_S).astype(int)
    _, block, counts = np.unique(block, return_inverse=True, return_counts=True)
    if len(counts) < 3:
        return None
    return np.bincount(block, t_h) / counts, np.bincount(block, y) / counts


def series(samples: Sequence[Sample], step_s: float = BLOCK_S) -> list[list[str]]:
    """A table of what is held over time, its head first: means over each `step_s` [MB], and of the
    facts that nodes tell those that change."""
    found: dict[str, dict[int, list[float]]] = {}
    for sample in samples:
        block = int((sample.t_s - samples[0].t_s) // step_s)
        for name, value in _held(sample).items():
            if not math.isfinite(value):
                continue
            found.setdefault(name, {}).setdefault(block, []).append(value)
    means = {name: {at: float(np.mean(v)) for at, v in by.items()} for name, by in found.items()}
    facts = {name for sample in samples for name in sample.account.facts}
    shown = [n for n, by in means.items() if n not in facts or len(set(by.values())) > 1]
    blocks = sorted({at for by in means.values() for at in by})
    rows = [
        [f"{(at + 0.5) * step_s / 60:g}", *(f"{means[n].get(at, NAN):.6g}" for n in shown)]
        for at in blocks
    ]
    return [["minute", *shown], *rows]


def _held(sample: Sample) -> dict[str, float]:
    held = {"allocated": sample.account.allocated_mb, "mesher": sample.account.mesher_mb}
    for name, pid in named({pid: p.label for pid, p in sample.processes.items()}).items():
        held[f"{name}.resident"] = sample.processes[pid].memory_mb
        held[f"{name}.anonymous"] = sample.processes[pid].anonymous_mb
    return held | sample.account.facts


def named(labels: dict[Key, str]) -> dict[str, Key]:
    """Each under its label; the second of one label as `label_2`, and so on."""
    found: dict[str, Key] = {}
    for key, label in sorted(labels.items()):
        name, number = label, 1
        while name in found:
            number += 1
            name = f"{label}_{number}"
        found[name] = key
    return found


def after_warm_up(samples: Sequence[Sample]) -> list[Sample]:
    """The samples without the first tenth of the time."""
    if not samples:
        return []
    begin_s, end_s = samples[0].t_s, samples[-1].t_s
    return [s for s in samples if s.t_s >= begin_s + WARM_UP_SHARE * (end_s - begin_s)]


def tracked_fps(samples: Sequence[Sample], begin_share: float, end_share: float) -> float:
    """Frames tracked a second between two shares of the time."""
    if len(samples) < 2:
        return NAN
    first_s, length_s = samples[0].t_s, samples[-1].t_s - samples[0].t_s
    at_s = first_s + length_s * np.array([begin_share, end_share])
    tracked = np.interp(at_s, [s.t_s for s in samples], [s.account.tracked for s in samples])
    return float((tracked[1] - tracked[0]) / (at_s[1] - at_s[0])) if length_s > 0 else NAN


def fps_ratio(samples: Sequence[Sample]) -> float:
    """Tracked frames a second in the last tenth over those in the second tenth."""
    second = tracked_fps(samples, 0.1, 0.2)
    return tracked_fps(samples, 0.9, 1.0) / second if second > 0 else NAN


def latency_p95_ms(first: Sample, last: Sample) -> float:
    """Glass to map of what came out between two samples: the upper edge of its bucket."""
    counts = np.asarray(last.account.latency_counts, dtype=float)
    before = np.asarray(first.account.latency_counts, dtype=float)
    if len(before) == len(counts):
        counts = counts - before
    if not counts.sum() > 0:
        return NAN
    at = int(np.searchsorted(np.cumsum(counts), 0.95 * counts.sum()))
    return 1e3 * last.account.latency_edges_s[at]


def memory_slopes(samples: Sequence[Sample]) -> dict[str, Slope]:
    """Of each process that was there in at least half of the samples, by its name."""
    series: dict[tuple[int, str], list[tuple[float, float]]] = {}
    for sample in samples:
        for pid, process in sample.processes.items():
            # one in reserve that takes a dead one's place has another's work from then on
            points = series.setdefault((pid, process.label), [])
            points.append((sample.t_s, process.memory_mb))
    lasting = {key: key[1] for key, points in series.items() if 2 * len(points) >= len(samples)}
    return {name: slope(*zip(*series[key], strict=True)) for name, key in named(lasting).items()}


def ended(samples: Sequence[Sample]) -> list[str]:
    """Processes that are gone at the last sample, of those that two or more samples saw."""
    seen = Counter(pid for sample in samples for pid in sample.processes)
    labels = {pid: p.label for sample in samples for pid, p in sample.processes.items()}
    return [labels[pid] for pid in seen if seen[pid] > 1 and pid not in samples[-1].processes]


def verdict(value: float, limit: float, *, at_most: bool) -> str:
    """Whether a figure meets its target, in words."""
    sign = "≤" if at_most else "≥"
    if not math.isfinite(value):
        return f"target {sign} {limit:g} not judged: too little was measured"
    met = value <= limit if at_most else value >= limit
    return f"{'meets' if met else 'misses'} the target {sign} {limit:g}"


def add_figures(bench: Benchmark, samples: Sequence[Sample], unexplained: float) -> None:
    """Report everything; `unexplained` is what the run's summary said at its end."""
    steady = after_warm_up(samples)
    if not steady:
        return
    first, last = steady[0], steady[-1]
    bench.add("hours", (samples[-1].t_s - samples[0].t_s) / 3600.0, "h", note=_span_note(samples))
    _add_memory(bench, steady)
    _add_speed(bench, samples, steady)
    faults = max(sample.account.faults for sample in samples)
    # the summary counts what it heard of these, too
    value = unexplained if math.isnan(unexplained) else max(unexplained, float(faults))
    note = f"the run's summary, or faults in live accounts ({faults}) where those are more; "
    note += verdict(value, MOST_UNEXPLAINED, at_most=True)
    bench.add("unexplained_frames", value, "frames", note=note)
    for reason, count in sorted(last.account.dropped.items()):
        if count:
            bench.add(f"dropped.{reason}", count, "frames", note=_drop_note(count, last))
    gone = ended(steady)
    note = ", ".join(gone) or "each that ran after the warm-up ran to the end"
    bench.add("processes_ended", len(gone), "-", note=note)
    for name in ("threads", "files", "segments"):
        before, after = getattr(first, name), getattr(last, name)
        bench.add(f"{name}_grown", after - before, "-", note=f"{before} → {after}, all processes")


def _span_note(samples: Sequence[Sample]) -> str:
    return f"{len(samples)} samples; growth is judged after the first {WARM_UP_SHARE:.0%}"


def _drop_note(count: int, last: Sample) -> str:
    return f"{count / max(last.t_s / 60.0, 1e-9):.1f} a minute; tracked: {last.account.tracked}"


def _add_memory(bench: Benchmark, steady: Sequence[Sample]) -> None:
    slopes = memory_slopes(steady)
    for name, found in slopes.items():
        _add_slope(bench, f"memory_slope.{name}", found)
    known = [
        (s.percent_per_h, name) for name, s in slopes.items() if math.isfinite(s.percent_per_h)
    ]
    value, worst = max(known, default=(NAN, "none could be judged"))
    note = f"of the process that grows most: {worst}"
    bench.add("soak_memory_slope_percent_h", value, "%/h", note=note, id_prefix="runtime")
    mesher = [s.account.mesher_mb for s in steady]
    grown = mesher[-1] - mesher[0]
    note = f"{mesher[0]:.0f} → {mesher[-1]:.0f} MB by its own account; "
    note += "grows with what was seen, up to mesher.memory_mb"
    bench.add("mesher_memory_grown", grown, "MB", note=note)
    roots = [
        next((p.memory_mb for p in s.processes.values() if p.label == "system"), NAN)
        for s in steady
    ]
    allocated = slope([s.t_s for s in steady], [s.account.allocated_mb for s in steady])
    _add_slope(bench, "memory_slope.system_allocated", allocated)
    rest = [total - part for total, part in zip(roots, mesher, strict=True)]
    found = slope([s.t_s for s in steady], rest)
    _add_slope(bench, "memory_slope.system_without_mesher", found)


def _add_slope(bench: Benchmark, id: str, found: Slope) -> None:
    of = "five-minute means" if found.blocks else "as if samples were independent"
    note = f"± {found.error_percent_per_h:.2g} (standard error, {of}); "
    note += f"{found.begin:.0f} → {found.end:.0f} MB; "
    note += verdict(found.percent_per_h, MOST_SLOPE_PERCENT_PER_H, at_most=True)
    bench.add(id, found.percent_per_h, "%/h", note=note)


def _add_speed(bench: Benchmark, samples: Sequence[Sample], steady: Sequence[Sample]) -> None:
    bench.add("fps", tracked_fps(samples, WARM_UP_SHARE, 1.0), "fps", note="tracked")
    ratio = fps_ratio(samples)
    note = "tracked frames a second, last tenth over second tenth; "
    bench.add(
        "fps_end_over_start", ratio, "-", note=note + verdict(ratio, LEAST_FPS_RATIO, at_most=False)
    )
    note = "soak.fps_end_over_start"
    bench.add("soak_fps_ratio", ratio, "-", note=note, id_prefix="runtime")
    ends = {"first": steady[: len(steady) // 2 + 1], "second": steady[len(steady) // 2 :]}
    for half, part in ends.items():
        value = latency_p95_ms(part[0], part[-1])
        note = f"glass to map, {half} half after the warm-up"
        bench.add(f"latency_p95_{half}_half", value, "ms", note=note)
