# SPDX-License-Identifier: Apache-2.0
"""Whether torch can compute on the GPU that it finds. Needs torch."""

from __future__ import annotations

import torch


def gpu_problem() -> str:
    """Why torch computes on no GPU here; empty where it does. Its builds leave out GPUs that are
    too old for them, and find them all the same."""
    if not torch.cuda.is_available():
        return "torch finds no GPU"
    major, minor = torch.cuda.get_device_capability()
    built = [name.partition("_")[2] for name in torch.cuda.get_arch_list()]
    oldest = min((int(each) for each in built if each.isdigit()), default=0)
    return "the GPU is too old for torch" if 10 * major + minor < oldest else ""
