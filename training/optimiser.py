# SPDX-License-Identifier: Apache-2.0
"""Muon for the matrices of the blocks, AdamW for everything else.

Jordan et al., "Muon: An optimizer for hidden layers in neural networks" (2024); steps are scaled to
AdamW's as in Liu et al., "Muon is Scalable for LLM Training" (2025). It is written out here in
float32 and for many matrices of one shape at a time: torch's own computes in bfloat16, which is ten
times slower on a processor without instructions for it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor, nn

_MOMENTUM = 0.95
_CLIP = 1.0
_POLYNOMIAL = (3.4445, -4.7750, 2.0315)
_ROUNDS = 4


def orthogonalised(gradients: Float[Tensor, "n r c"]) -> Float[Tensor, "n r c"]:
    """Each matrix with its singular values brought close to one (Newton-Schulz, five terms)."""
    x: Tensor = gradients / gradients.norm(dim=(1, 2), keepdim=True).clamp(min=1e-12)
    tall = x.shape[1] > x.shape[2]
    if tall:
        x = x.mT
    a, b, c = _POLYNOMIAL
    for _ in range(_ROUNDS):
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    return x.mT if tall else x


class Optimiser:
    """One step on all parameters from their gradients, which it clears."""

    def __init__(self, named: Iterable[tuple[str, nn.Parameter]], rate: float) -> None:
        self._rate = rate
        matrices: dict[torch.Size, list[nn.Parameter]] = {}
        rest = []
        for name, parameter in named:
            if parameter.ndim == 2 and ("blocks" in name or name.startswith("decoder_embed")):
                matrices.setdefault(parameter.shape, []).append(parameter)
            else:
                rest.append(parameter)
        self._matrices = list(matrices.values())
        self._momenta = [
            torch.zeros((len(group), *group[0].shape), device=group[0].device)
            for group in self._matrices
        ]
        self._adam = torch.optim.AdamW(rest, lr=rate, betas=(0.9, 0.95), weight_decay=0.0)
        self._all = [*rest, *(p for group in self._matrices for p in group)]

    @torch.no_grad()
    def step(self, pace: float) -> None:
        """Take a step at `pace` times the rate; the matrices' steps are three times as long."""
        nn.utils.clip_grad_norm_([p for p in self._all if p.grad is not None], _CLIP)
        for group in self._adam.param_groups:
            group["lr"] = self._rate * pace
        self._adam.step()
        for parameters, momentum in zip(self._matrices, self._momenta, strict=True):
            self._turn(parameters, momentum, 3.0 * self._rate * pace)
        for parameter in self._all:
            parameter.grad = None

    def _turn(self, parameters: list[nn.Parameter], momentum: Tensor, rate: float) -> None:
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        now = torch.stack(gradients)
        momentum.mul_(_MOMENTUM).add_(now)
        wanted = now.add_(momentum, alpha=_MOMENTUM)
        rows, columns = wanted.shape[1:]
        # queries, keys and values are three matrices in one
        parts = wanted.view(-1, columns, columns) if rows == 3 * columns else wanted
        update = orthogonalised(parts)
        scale = 0.2 * math.sqrt(max(update.shape[1:]))
        for parameter, step in zip(parameters, update.view_as(wanted), strict=True):
            parameter.add_(step, alpha=-rate * scale)
