# SPDX-License-Identifier: Apache-2.0
"""What the graph has done, in numbers, and what `/diagnostics` say of it."""

from __future__ import annotations

from dataclasses import dataclass

from worldsystem_core.reconstruction import ScaleState
from worldsystem_slam3r.graph.loops import LoopFinder
from worldsystem_slam3r.scale.fit import MetricFit
from worldsystem_slam3r.scale.metric import MetricScale


@dataclass
class GraphCounts:
    """What the graph has done so far."""

    loops: int = 0
    corrections: int = 0
    relocalised: int = 0
    submaps: int = 1
    merged: int = 0
    guessed: int = 0


def graph_facts(
    scale: ScaleState,
    counts: GraphCounts,
    metric: MetricScale,
    fit: MetricFit | None,
    finder: LoopFinder,
) -> dict[str, object]:
    """What diagnostics say, by name."""
    facts: dict[str, object] = {
        "scale": "metric" if scale is ScaleState.METRIC else "scene (unknown)",
        "loops": counts.loops,
        "findable_keyframes": len(finder.index),
        "submaps": counts.submaps,
        "merged": counts.merged,
        "relocalised": counts.relocalised,
    }
    if metric.sample_count or metric.missed:
        facts["measurements"] = metric.sample_count
        facts["measurements_without_pose"] = metric.missed
    if fit is not None:
        facts["metres_per_scene_unit"] = f"{fit.map_from_scene.scale:.4g}"
        facts["scale_sigma_percent"] = f"{100.0 * fit.scale_sigma:.2g}"
        facts["scale_sources"] = ", ".join(metric.sources)
    return facts | {f"refused.{why}": count for why, count in finder.refused.items()}
