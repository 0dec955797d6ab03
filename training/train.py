# SPDX-License-Identifier: Apache-2.0
"""Train a small pair of SLAM3R networks from nothing, on rooms that are rendered here.

    python training/train.py --minutes 20 --out runs/tiny

What it leaves: both networks as fp16 safetensors with their sizes inside, and `card.json` with the
errors in rooms that were never shown.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any  # JSON values

import torch
from calibrate import settings_for
from evaluate import held_out_errors
from follow import followed
from plan import Plan
from safetensors.torch import load_file, save_file
from trainer import Trainer
from windows import Clip, film_rooms

from worldsystem_slam3r.model.i2p import ImageToPoints
from worldsystem_slam3r.model.l2w import LocalToWorld
from worldsystem_slam3r.model.sizes import METADATA_KEY

FIRST_HELD_OUT_SEED = 1_000_000
_HELD_OUT_ROOMS = 18
_CALIBRATION_ROOMS = 6
_FOLLOWED_ROOMS = 6


def save(out: Path, i2p: ImageToPoints, l2w: LocalToWorld) -> None:
    """Write both networks in half precision, their sizes in the file's metadata."""
    out.mkdir(parents=True, exist_ok=True)
    for name, net in (("i2p", i2p), ("l2w", l2w)):
        state = {key: value.half().contiguous() for key, value in net.state_dict().items()}
        save_file(state, out / f"{name}.safetensors", metadata={METADATA_KEY: net.sizes.to_json()})


def write_card(
    out: Path, trainer: Trainer, plan: Plan, clips: list[Clip], run: dict[str, dict[str, float]]
) -> dict[str, Any]:
    """Say what the saved networks are worth; errors and thresholds are of rooms never shown."""
    i2p, l2w = trainer.i2p.cpu().eval(), trainer.l2w.cpu().eval()
    unseen = range(FIRST_HELD_OUT_SEED, FIRST_HELD_OUT_SEED + _HELD_OUT_ROOMS)
    held_out = _film(unseen, plan)
    others = range(unseen.stop, unseen.stop + _CALIBRATION_ROOMS)
    card: dict[str, Any] = {
        "licence": "Apache-2.0",
        "settings": settings_for(i2p, l2w, _film(others, plan)),
        "plan": plan.recipe,
        "parameters": {
            name: sum(p.numel() for p in net.parameters())
            for name, net in (("i2p", i2p), ("l2w", l2w))
        },
        **run,
        "held_out": held_out_errors(i2p, l2w, held_out, clips),
    }
    path = out / "card.json"
    path.write_text(json.dumps(card, indent=1) + "\n")  # the back-end reads its settings
    card["followed"] = followed(out, held_out[:_FOLLOWED_ROOMS])
    path.write_text(json.dumps(card, indent=1) + "\n")
    return card


def main() -> None:
    """Film, train, save, judge; with no minutes to train, judge what `resume` left."""
    plan, out = _arguments()
    torch.set_num_threads(plan.threads)  # with more, OpenMP spins while another program computes
    torch.set_float32_matmul_precision("high")
    began_s = time.monotonic()
    clips = _film(range(plan.rooms), plan)
    print(f"{plan.rooms} rooms ready after {time.monotonic() - began_s:.0f} s", flush=True)
    trainer = Trainer(plan, clips)
    before = _take_up(trainer, Path(plan.resume)) if plan.resume else {}
    began_s, began_cpu_s = time.monotonic(), time.process_time()
    steps = trainer.run()
    spent = {
        "training_processor_s": round(time.process_time() - began_cpu_s),
        "training_clock_s": round(time.monotonic() - began_s),
    }
    save(out, trainer.i2p, trainer.l2w)
    run: dict[str, Mapping[str, float]]
    run = {"minutes": plan.minutes_of, "steps": steps, "spent": spent}
    added = {
        name: {key: count + before.get(name, {}).get(key, 0) for key, count in counts.items()}
        for name, counts in run.items()
    }
    print(json.dumps(write_card(out, trainer, plan, clips, added), indent=1))


def _film(seeds: range, plan: Plan) -> list[Clip]:
    kept = Path(plan.kept) if plan.kept else None
    return film_rooms(seeds, plan.frames, plan.size_px, threads=plan.threads, kept=kept)


def _take_up(trainer: Trainer, folder: Path) -> dict[str, Any]:
    """Go on with the networks of an earlier run; its card."""
    for name, net in (("i2p", trainer.i2p), ("l2w", trainer.l2w)):
        state = load_file(folder / f"{name}.safetensors")
        try:
            net.load_state_dict({key: value.float() for key, value in state.items()})
        except RuntimeError:
            sys.exit(f"{folder} holds networks of other sizes; give the --sizes of its card.json")
    card: dict[str, Any] = json.loads((folder / "card.json").read_text())
    trainer.l2w_is_new = card["steps"]["l2w"] == 0
    return card


def _arguments() -> tuple[Plan, Path]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for networks and card")
    for name, default in Plan().__dict__.items():
        flag = f"--{name.replace('_', '-')}"
        parser.add_argument(flag, type=type(default), default=default)
    given = vars(parser.parse_args())
    out = given.pop("out")
    return Plan(**given), out


if __name__ == "__main__":
    main()
