# SPDX-License-Identifier: Apache-2.0
"""The training code is a folder of scripts, not a package."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

torch.set_num_threads(1)
sys.path.insert(0, str(Path(__file__).parents[2] / "training"))
