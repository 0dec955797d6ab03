# SPDX-License-Identifier: Apache-2.0
"""How late a stage is counts from the capture of what it hears live, and of nothing older."""

from __future__ import annotations

import time

from node_lab import NoSettings

from worldsystem_core.ros.stage_node import StageNode


def test_what_was_captured_before_a_stage_began_says_nothing_of_how_late_it_is(context):
    """A flight of five minutes ago that is replayed was told as minutes late."""
    node = StageNode("late", NoSettings, context=context)
    try:
        for age_s in (30.0, 300.0, 86_400.0):
            node.measure_latency(time.time_ns() - round(age_s * 1e9))
        assert node.latency.count == 0
        node.measure_latency(time.time_ns())
        assert node.latency.count == 1
    finally:
        node.close()
