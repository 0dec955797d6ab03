# SPDX-License-Identifier: Apache-2.0
"""What a SAM 2 or EdgeTAM video session may forget without any later mask changing.

transformers' sessions keep every picture and every memory for good: some 60 MiB a frame with ten
objects at full size. What the next frame reads is: the memory features of the last `num_maskmem`-1
frames, the pointers of the last `max_object_pointers_in_encoder`-1, and the conditioning frames.
The rest goes; results stay bit-identical (a test compares).
"""

from __future__ import annotations

from typing import Any

KEPT_ANCHORS = 4


def prune(session: Any, frame: int, model_config: Any) -> None:  # transformers' own types
    """Forget what no frame after `frame` reads. Call after each forward pass at `frame`."""
    pointers = model_config.max_object_pointers_in_encoder - 2
    memories = model_config.num_maskmem - 2
    for key in [k for k in session.processed_frames if k < frame]:
        del session.processed_frames[key]
    for outputs in session.output_dict_per_obj.values():
        _prune_plain(outputs["non_cond_frame_outputs"], frame - pointers, frame - memories)
        _prune_anchors(outputs["cond_frame_outputs"])
    for inputs in (session.point_inputs_per_obj, session.mask_inputs_per_obj):
        for by_frame in inputs.values():
            for key in [k for k in by_frame if k < frame]:
                del by_frame[key]
    for tracked in session.frames_tracked_per_obj.values():
        for key in [k for k in tracked if k < frame]:
            del tracked[key]


def _prune_plain(outputs: dict[int, dict[str, Any]], oldest: int, oldest_memory: int) -> None:
    for key in [k for k in outputs if k < oldest]:
        del outputs[key]
    for key, output in outputs.items():
        output.pop("high_res_masks", None)
        output.pop("pred_masks", None)
        if key < oldest_memory:
            output.pop("maskmem_features", None)
            output.pop("maskmem_pos_enc", None)


def _prune_anchors(outputs: dict[int, dict[str, Any]]) -> None:
    """The first anchor, which says what the thing is, and the last ones, which say how it looks."""
    keys = sorted(outputs)
    for key in keys[1 : len(keys) - (KEPT_ANCHORS - 1)]:
        del outputs[key]
    for output in outputs.values():
        output.pop("high_res_masks", None)


def held_tensors(session: Any) -> int:
    """How many bytes of tensors a session holds, for tests and diagnostics."""
    import torch

    total, open_, seen = 0, [vars(session)], set()
    while open_:
        item = open_.pop()
        if id(item) in seen:
            continue
        seen.add(id(item))
        if isinstance(item, torch.Tensor):
            total += item.numel() * item.element_size()
        elif isinstance(item, dict):
            open_ += item.values()
        elif isinstance(item, list | tuple | set):
            open_ += item
        elif hasattr(item, "__dict__"):
            open_.append(vars(item))
    return total
