# SPDX-License-Identifier: Apache-2.0
"""Every process of a run killed again and again: how long until it is back, who else stalls,
what of the map is lost, what shared memory stays, and whether the ledger still explains all.

Two runs of the demo's flight at 320x180, 5 pictures a second, which is what two cores hold with a
process for each stage: one with `--separate`, and one as it comes whose reconstruction is killed.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import tempfile
import time
from pathlib import Path

from harness import QUICK, Benchmark
from kills_campaign import Campaign, Kill
from kills_run import Run
from kills_witness import Witness

STAGES = [
    *("ingest", "slam3r", "mesher", "segmenter"),
    *("splats", "viewer", "recorder", "monitor"),
]
"""All but the reporter, which is in the supervisor, and the simulator, which is no part of it."""
UNDISTURBED_S = 20.0
PAUSE_S = 1.0
"""Between the return of one and the death of the next."""


class Results:
    """What the kills of one run did, and how it was without any."""

    def __init__(self) -> None:
        self.kills: list[Kill] = []
        self.undisturbed_s: dict[str, float] = {}
        self.unexplained = math.nan
        self.left: set[str] = set()
        self.broken = ""  # why it ended before its last kill


def fly(targets: list[str], rounds: int, most_s: float, *, separate: bool) -> Results:
    """One run and `rounds` kills of each target, or fewer rounds once `most_s` have passed.

    Of a run that ends by itself the kills up to then are kept; a `RuntimeError` before the first.
    """
    results = Results()
    with tempfile.TemporaryDirectory() as folder:
        before = set(os.listdir("/dev/shm"))
        run = Run(Path(folder), separate=separate)
        witness = Witness()
        try:
            campaign = Campaign(run, witness, seed=1, pause_s=PAUSE_S)
            campaign.wait_for_work(STAGES)
            begun_s = time.monotonic()
            time.sleep(UNDISTURBED_S)
            results.undisturbed_s = campaign.stalls_s(begun_s, time.monotonic())
            order = campaign.order(targets, rounds)
            results.broken = strike_all(campaign, order, results.kills, begun_s + most_s)
            results.unexplained = math.nan if results.broken else run.end()
        finally:
            witness.close()
            run.close()
        time.sleep(1.0)
        results.left = run.left(before)
    return results


def strike_all(campaign: Campaign, order: list[str], kills: list[Kill], until_s: float) -> str:
    """Add a kill for each of `order`, whole rounds until then; why it ended early, or nothing."""
    stages = len(set(order))
    for number, target in enumerate(order):
        if number % stages == 0 and time.monotonic() > until_s:
            break
        try:
            kills.append(campaign.strike(target))
        except RuntimeError as error:
            kills.append(Kill(target))
            return str(error)
        print(described(kills[-1]), flush=True)
    return ""


def described(kill: Kill) -> str:
    """One kill in one line."""
    longest = max(kill.stalls_s, key=lambda kind: kill.stalls_s[kind], default="")
    return (
        f"{kill.stage:10s} back {kill.back_s:5.1f} s, "
        f"kept {kill.kept_percent:5.1f} % of {kill.before} after {kill.whole_s:5.1f} s, "
        f"lost {kill.lost_s:4.1f} s, "
        f"longest silence {kill.stalls_s.get(longest, 0.0):4.1f} s ({longest})"
    )


def report(bench: Benchmark, results: Results, *, prefix: str = "") -> None:
    """The figures of one run."""
    for stage in dict.fromkeys(kill.stage for kill in results.kills):
        kills = [kill for kill in results.kills if kill.stage == stage]
        back = [kill.back_s for kill in kills if not math.isnan(kill.back_s)]
        note = f"SIGKILL to its first sign of life; {len(back)} of {len(kills)} came back"
        bench.add(f"{prefix}{stage}_back_s", back or math.nan, "s", note=note)
        kept = [kill.kept_percent for kill in kills if not math.isnan(kill.kept_percent)]
        if kept:
            bench.add(f"{prefix}{stage}_kept_percent", kept, "%", note=WHAT_IS_KEPT[stage])
            whole = [kill.whole_s for kill in kills if not math.isnan(kill.whole_s)]
            note = "SIGKILL until that is there again"
            bench.add(f"{prefix}{stage}_whole_s", whole, "s", note=note)
        if stage in ("slam3r", "worker"):
            lost = [kill.lost_s for kill in kills]
            told = math.nan if any(map(math.isnan, lost)) else lost
            bench.add(f"{prefix}{stage}_lost_s", told, "s", note="age of the oldest keyframe lost")
    bench.add(f"{prefix}kills", len(results.kills), "", note="all stages together")
    add_worst(bench, results.kills, prefix)
    for name, kinds in SILENCES.items():
        judged = [kill for kill in results.kills if any(k.endswith(kinds) for k in kill.stalls_s)]
        stalls = [longest(kill.stalls_s, kinds) for kill in judged]
        calm = longest(results.undisturbed_s, kinds)
        note = f"longest silence of {name} around each kill; {calm:.1f} s without any"
        if stalls:
            bench.add(f"{prefix}stall_{name}_s", stalls, "s", note=note)
    late = [kill.heard_late_s for kill in results.kills]
    note = "longest time that a sign of life took to the witness around each kill"
    bench.add(f"{prefix}heard_late_s", late, "s", note=note)
    bench.add(f"{prefix}unexplained_frames", results.unexplained, "frames")
    ports = {name for name in results.left if "_port" in name}
    note = "memory in /dev/shm that nobody has when the run has ended"
    bench.add(f"{prefix}segments_left", len(results.left - ports), "", note=note)
    note = "ports of Fast DDS, 52 KB and a semaphore; it leaves them at any end and uses them again"
    bench.add(f"{prefix}ports_left", len(ports), "", note=note)


def add_worst(bench: Benchmark, kills: list[Kill], prefix: str) -> None:
    """The longest return, where one that never came back is not a number, and silence."""
    longest_s = max(kills, key=lambda kill: math.inf if math.isnan(kill.back_s) else kill.back_s)
    note = f"the longest of all {len(kills)} returns: {longest_s.stage}"
    bench.add(f"{prefix}restart_s_max", longest_s.back_s, "s", note=note, id_prefix="runtime")
    stalls = [(gap, kind, kill.stage) for kill in kills for kind, gap in kill.stalls_s.items()]
    gap_s, kind, stage = max(stalls, default=(math.nan, "nothing", "nothing"))
    note = f"the longest silence that a kill caused others: {kind}, when {stage} was killed"
    bench.add(f"{prefix}stall_s_max", gap_s, "s", note=note, id_prefix="runtime")


WHAT_IS_KEPT = {
    "ingest": "whether pictures flow again",
    "mesher": "blocks of the surface",
    "viewer": "blocks of the surface that the page has",
    "splats": "keyframes that have splats",
    "segmenter": "objects, by their ids",
    "slam3r": "keyframes",
    "worker": "keyframes",
}
SILENCES = {"pictures": "ingest output", "poses": "slam3r output", "others": " sign"}


def longest(stalls_s: dict[str, float], kinds: str) -> float:
    """The longest silence of those whose name ends so."""
    return max((gap for kind, gap in stalls_s.items() if kind.endswith(kinds)), default=0.0)


def main() -> int:
    """Both campaigns, as many rounds as asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=1 if QUICK else 20, help="kills of each")
    parser.add_argument("--minutes", type=float, default=60.0, help="no new round after so long")
    parser.add_argument("--only", default="", help="stages to kill, with commas (default: all)")
    given = parser.parse_args()
    os.environ.setdefault("ROS_DOMAIN_ID", str(60 + os.getpid() % 40))
    bench = Benchmark("kills")
    targets = given.only.split(",") if given.only else STAGES
    most_s = 60.0 * given.minutes
    apart = fly(targets, given.rounds, most_s, separate=True)
    report(bench, apart)
    composed = fly(["worker"], given.rounds, most_s / len(STAGES), separate=False)
    report(bench, composed, prefix="composed_")
    print(bench.write())
    broken = "\n".join(filter(None, (apart.broken, composed.broken)))
    print(broken, end="\n" if broken else "", file=sys.stderr)
    return int(bool(broken))


if __name__ == "__main__":
    sys.exit(main())
