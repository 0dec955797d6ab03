# SPDX-License-Identifier: Apache-2.0
"""Three parts of a training that share its time: Image-to-Points, Local-to-World, retrieval."""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from decoding import Lesson
from optimiser import Optimiser
from pixels import Pixels
from plan import SIZES, Plan
from starts import begin_from, begin_gently, same_heads
from steps import REFERENCES, own_view_loss, retrieval_loss, window_loss, world_loss
from torch import Tensor, nn
from windows import Clip, Views, reference_windows, world_windows

from worldsystem_slam3r.model.i2p import ImageToPoints
from worldsystem_slam3r.model.l2w import LocalToWorld

_PIXEL_STEP = 2
_WARM_UP_STEPS = 30
_FALLS_FROM = 0.5
_MATCHING = 0.1
_CONFIDENT_FROM = 0.75
_REFERENCES = (2, 5)
_BEGINNING = 96
_SCORES_HASTE = 5.0
"""The scores are one small network on top of a fixed one, and bear a higher rate."""
_LOADERS = 4
_REPORT_EVERY = 20

Make = Callable[[np.random.Generator], Views]


@dataclass(frozen=True)
class Moment:
    """A step's number, how much of its part's time is over (0 … 1), and its own random numbers."""

    step: int
    done: float
    rng: np.random.Generator

    @property
    def pace(self) -> float:
        """The share of the full rate: up over some steps, later down to nothing."""
        rising = (self.step + 1) / _WARM_UP_STEPS
        falling = (1.0 - self.done) / (1.0 - _FALLS_FROM)
        return max(0.0, min(1.0, rising, falling))

    @property
    def lesson(self) -> Lesson:
        """Where to look first, how sure to be last."""
        return Lesson(
            confident=self.done > _CONFIDENT_FROM,
            matching=_MATCHING * (1.0 - self.done),
            pixels=Pixels.random(_PIXEL_STEP, self.rng),
        )


class Trainer:
    """Both networks, from nothing, over the plan's minutes.

    On a processor the minutes are of its time, whatever else it computes; elsewhere of the clock.
    """

    def __init__(self, plan: Plan, clips: list[Clip]) -> None:
        self._plan = plan
        self._clips = clips
        torch.manual_seed(plan.seed)
        sizes = SIZES[plan.sizes]
        self.i2p, self.l2w = ImageToPoints(sizes), LocalToWorld(sizes)
        for net in (self.i2p, self.l2w):
            begin_gently(net)
            net.to(plan.device)
        self.l2w_is_new = True

    def run(self) -> dict[str, int]:
        """Train all parts in turn; the number of steps that each one had."""
        steps = {"own_view": self._part("own_view", self.i2p, self._windows, self._own_view)}
        if steps["own_view"]:
            same_heads(self.i2p)
        steps["i2p"] = self._part("i2p", self.i2p, self._windows, self._window)
        if self.l2w_is_new:
            self._begin_l2w()
        steps["l2w"] = self._part("l2w", self.l2w, self._worlds, self._world)
        scores = nn.ModuleList([self.i2p.corr_score_norm, self.i2p.corr_score_proj])
        steps["retrieval"] = self._part("retrieval", scores, self._candidates, self._scores)
        return steps

    @torch.no_grad()
    def _begin_l2w(self) -> None:
        rng = np.random.default_rng(self._plan.seed)
        views = world_windows(self._clips, rng, batch=_BEGINNING, views=self._plan.views + 1)
        begin_from(self.l2w, self.i2p, views.to(self._plan.device), REFERENCES)

    def _part(
        self, name: str, net: nn.Module, make: Make, loss_of: Callable[[Views, Moment], Tensor]
    ) -> int:
        """Take steps on the parameters of `net` alone, for the part's share of the time."""
        for parameter in (*self.i2p.parameters(), *self.l2w.parameters()):
            parameter.requires_grad_(False)
        net.requires_grad_(True)
        rate = self._plan.rate * (_SCORES_HASTE if name == "retrieval" else 1.0)
        optimiser = Optimiser(net.named_parameters(), rate)
        clock = time.process_time if self._plan.device == "cpu" else time.monotonic
        began_s, allowed_s = clock(), 60.0 * self._plan.minutes_of[name]
        step, smooth = 0, 0.0
        if not allowed_s:
            return 0
        for step, views in enumerate(self._fed(make)):
            done = (clock() - began_s) / allowed_s
            if done >= 1.0:
                break
            moment = Moment(step, done, np.random.default_rng([self._plan.seed, step]))
            loss = loss_of(views.to(self._plan.device), moment)
            torch.autograd.backward(loss)
            optimiser.step(moment.pace)
            smooth += (float(loss.detach()) - smooth) / min(step + 1, _REPORT_EVERY)
            if step % _REPORT_EVERY == 0:
                print(f"{name}: step {step}, {100 * done:.0f} %, loss {smooth:.3f}", flush=True)
        return step

    def _fed(self, make: Make) -> Iterator[Views]:
        """Batches without end; for a GPU some are made ahead, by threads."""
        seeds = ([self._plan.seed, 1, number] for number in itertools.count())
        batches = (np.random.default_rng(seed) for seed in seeds)
        if self._plan.device == "cpu":
            yield from map(make, batches)
            return
        with ThreadPoolExecutor(_LOADERS) as pool:
            ahead = deque(pool.submit(make, rng) for rng in itertools.islice(batches, 2 * _LOADERS))
            for rng in batches:
                yield ahead.popleft().result()
                ahead.append(pool.submit(make, rng))

    def _windows(self, rng: np.random.Generator) -> Views:
        views = int(rng.integers(3, self._plan.views + 1))
        return reference_windows(self._clips, rng, batch=self._plan.batch, views=views)

    def _worlds(self, rng: np.random.Generator) -> Views:
        batch = self._plan.world_batch
        return world_windows(self._clips, rng, batch=batch, views=self._plan.views + 1)

    def _candidates(self, rng: np.random.Generator) -> Views:
        batch = self._plan.world_batch
        return world_windows(self._clips, rng, batch=batch, views=2 * self._plan.views)

    def _own_view(self, views: Views, moment: Moment) -> Tensor:
        return own_view_loss(self.i2p, views, moment.lesson)

    def _window(self, views: Views, moment: Moment) -> Tensor:
        return window_loss(self.i2p, views, moment.lesson)

    def _world(self, views: Views, moment: Moment) -> Tensor:
        references = int(moment.rng.integers(*_REFERENCES))
        return world_loss(self.l2w, self.i2p, views, moment.lesson, references=references)

    def _scores(self, views: Views, moment: Moment) -> Tensor:
        return retrieval_loss(self.i2p, views)
