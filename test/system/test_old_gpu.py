# SPDX-License-Identifier: Apache-2.0
"""A GPU that torch finds, and has no kernels for, is passed by."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")

from worldsystem_core.errors import BackendError
from worldsystem_segment.learned.loading import device_of
from worldsystem_slam3r.slam3r.create import chosen_device


@pytest.mark.parametrize("choose", [chosen_device, device_of], ids=["slam3r", "segmenter"])
@pytest.mark.parametrize(("card", "chosen"), [((6, 1), "cpu"), ((7, 5), "cuda"), ((12, 0), "cuda")])
def test_beside_a_gpu_that_is_too_old_for_torch_networks_run_on_the_processor(
    monkeypatch, choose, card, chosen
):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda: card)
    built = ["sm_75", "sm_90", "sm_90a", "sm_120", "compute_120"]
    monkeypatch.setattr("torch.cuda.get_arch_list", lambda: built)
    assert choose("auto") == chosen
    assert choose("cpu") == "cpu"
    if chosen == "cuda":
        assert choose("cuda") == "cuda"
        return
    with pytest.raises(BackendError, match="too old for torch"):
        choose("cuda")
