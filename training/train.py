# SPDX-License-Identifier: Apache-2.0
"""Train a small pair of SLAM3R networks from nothing, on rooms that are rendered here.

    python training/train.py --minutes 20 --out runs/tiny

Three parts share the time: Image-to-Points, Local-to-World (with the first one's encoder fixed),
and the retrieval scores. What it leaves: both networks as fp16 safetensors with their sizes inside,
and `card.json` with the errors in rooms that were never shown.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from calibrate import settings_for
from evaluate import held_out_errors
from safetensors.torch import load_file, save_file
from steps import retrieval_loss, window_loss, world_loss
from torch import Tensor, nn
from windows import Clip, Views, film_rooms, reference_windows, world_windows

from worldsystem_slam3r.model.i2p import ImageToPoints
from worldsystem_slam3r.model.l2w import LocalToWorld
from worldsystem_slam3r.model.sizes import METADATA_KEY, NetworkSizes

SMALLEST = NetworkSizes(
    encoder_dim=160,
    encoder_depth=4,
    encoder_heads=5,
    decoder_dim=160,
    decoder_depth=3,
    decoder_heads=5,
)
FIRST_HELD_OUT_SEED = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How long, on what, and with which steps."""

    minutes: float = 20.0
    rooms: int = 150
    frames: int = 60
    size_px: int = 112
    batch: int = 4
    views: int = 5
    rate: float = 3e-4
    seed: int = 0
    device: str = "cpu"
    threads: int = 1
    i2p_share: float = 0.55
    l2w_share: float = 0.37
    resume: str = ""

    @property
    def shares(self) -> dict[str, float]:
        """The share of the time for each part; the scores of retrieval get what is left."""
        rest = 1.0 - self.i2p_share - self.l2w_share
        return {"i2p": self.i2p_share, "l2w": self.l2w_share, "retrieval": max(rest, 0.0)}


class Trainer:
    """AdamW with a warm-up and a cosine decay over a share of the plan's time."""

    def __init__(self, plan: Plan, clips: list[Clip]) -> None:
        self._plan = plan
        self._clips = clips
        self._rng = np.random.default_rng(plan.seed)
        torch.manual_seed(plan.seed)
        self.i2p = ImageToPoints(SMALLEST)
        self.l2w = LocalToWorld(SMALLEST)
        if plan.resume:
            for name, net in (("i2p", self.i2p), ("l2w", self.l2w)):
                state = load_file(Path(plan.resume) / f"{name}.safetensors")
                net.load_state_dict({key: value.float() for key, value in state.items()})
        self.i2p.to(plan.device)
        self.l2w.to(plan.device)

    def run(self) -> dict[str, int]:
        """Train all three parts; the number of steps that each one had."""
        heads = (self.i2p.corr_score_norm, self.i2p.corr_score_proj)
        return {
            "i2p": self._part("i2p", self.i2p.parameters, self._window_step),
            "l2w": self._part("l2w", self.l2w.parameters, self._world_step),
            "retrieval": self._part(
                "retrieval", nn.ModuleList(heads).parameters, self._retrieval_step
            ),
        }

    def _part(
        self, name: str, parameters: Callable[[], object], loss_of: Callable[[], Tensor]
    ) -> int:
        plan, share_s = self._plan, 60.0 * self._plan.minutes * self._plan.shares[name]
        chosen = [p for p in parameters() if p.requires_grad]  # type: ignore[attr-defined]
        optimiser = torch.optim.AdamW(chosen, lr=plan.rate, weight_decay=0.02, betas=(0.9, 0.95))
        began_s, steps, smooth = time.monotonic(), 0, 0.0
        while share_s and (done := (time.monotonic() - began_s) / share_s) < 1.0:
            for group in optimiser.param_groups:
                group["lr"] = plan.rate * min(1.0, (steps + 1) / 200) * _cosine(done)
            loss = loss_of()
            optimiser.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            nn.utils.clip_grad_norm_(chosen, 0.5)
            optimiser.step()
            steps += 1
            smooth += (float(loss.detach()) - smooth) / min(steps, 50)
            if steps % 100 == 0:
                print(f"{name}: step {steps}, {100 * done:.0f} %, loss {smooth:.3f}", flush=True)
        return steps

    def _views(self, make: Callable[..., Views], count: int) -> Views:
        views = make(self._clips, self._rng, batch=self._plan.batch, views=count)
        device = self._plan.device
        return Views(*(getattr(views, n).to(device) for n in ("images", "points", "own", "valid")))

    def _window_step(self) -> Tensor:
        count = int(self._rng.integers(2, self._plan.views + 1))
        return window_loss(self.i2p, self._views(reference_windows, count))

    def _world_step(self) -> Tensor:
        return world_loss(self.l2w, self.i2p, self._views(world_windows, self._plan.views + 1))

    def _retrieval_step(self) -> Tensor:
        return retrieval_loss(self.i2p, self._views(world_windows, 2 * self._plan.views))


def save(out: Path, i2p: ImageToPoints, l2w: LocalToWorld) -> None:
    """Write both networks in half precision, their sizes in the file's metadata."""
    out.mkdir(parents=True, exist_ok=True)
    for name, net in (("i2p", i2p), ("l2w", l2w)):
        state = {key: value.half().contiguous() for key, value in net.state_dict().items()}
        save_file(state, out / f"{name}.safetensors", metadata={METADATA_KEY: net.sizes.to_json()})


def main() -> None:
    """Film, train, evaluate, save."""
    plan, out = _arguments()
    torch.set_num_threads(plan.threads)  # with more, OpenMP spins while another program computes
    torch.set_float32_matmul_precision("high")
    began_s = time.monotonic()
    clips = film_rooms(range(plan.rooms), plan.frames, plan.size_px)
    print(f"{plan.rooms} rooms filmed in {time.monotonic() - began_s:.0f} s", flush=True)
    trainer = Trainer(plan, clips)
    steps = trainer.run()
    save(out, trainer.i2p, trainer.l2w)
    unseen = range(FIRST_HELD_OUT_SEED, FIRST_HELD_OUT_SEED + max(6, plan.rooms // 8))
    errors = held_out_errors(trainer.i2p, trainer.l2w, unseen, clips, size_px=plan.size_px)
    parameters = {
        n: sum(p.numel() for p in getattr(trainer, n).parameters()) for n in ("i2p", "l2w")
    }
    fresh = film_rooms(range(unseen.stop, unseen.stop + 6), plan.frames, plan.size_px)
    card = {
        "licence": "Apache-2.0",
        "settings": settings_for(trainer.i2p, trainer.l2w, fresh),
        "plan": plan.__dict__,
        "steps": steps,
        "parameters": parameters,
        "held_out": errors,
    }
    (out / "card.json").write_text(json.dumps(card, indent=1) + "\n")
    print(json.dumps(card, indent=1))


def _cosine(done: float) -> float:
    return 0.02 + 0.98 * 0.5 * (1.0 + float(np.cos(np.pi * min(done, 1.0))))


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
