# SPDX-License-Identifier: Apache-2.0
"""One picture for many SAM 2 sessions at once: attend to the memories, decode, remember.

transformers' `Sam2VideoModel.forward` takes its objects one after the other, and on a GPU the time
of a small pass is that of launching its kernels. Here all sessions whose memories have one shape go
through the network side by side. What is stored in each is what `forward` stores, but for the order
in which floats are summed; `forward` stays the plain twin that tests compare with.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from worldsystem_segment.learned.vision_encoder import Vision

MOST_TOGETHER = 16  # bounds a pass: at full size one session's keys take 30 MB in each copy
ABSENT = -1024.0  # the library's logit of every pixel of an object that is not there


@dataclass(frozen=True, eq=False)
class Logits:
    """What a network says of one object in one picture: of each pixel, and of its being there."""

    mask: Float[Tensor, "1 1 a b"]
    presence: Float[Tensor, "..."]  # one value


@dataclass(frozen=True, eq=False)
class _Memory:
    """What one session attends to: pictures by how long ago they were, and object pointers."""

    pictures: list[tuple[int, dict[str, Tensor]]]
    pointers: list[Tensor]
    pointer_ages: list[int]
    oldest_pointer: int

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.pictures), len(self.pointers)


def can_run_together(model: Any) -> bool:  # transformers' own types, here and below
    """SAM 2 can; EdgeTAM cannot: its perceiver takes the memory of one object only."""
    return type(model).__name__ == "Sam2VideoModel"


def follow_together(
    model: Any, sessions: Sequence[Any], frame: int, features: Vision
) -> list[Logits]:
    """Follow the one object of each session into picture `frame`; the order is that of `sessions`.

    Each session holds an anchor of an earlier picture and no prompt of this one. A ValueError of
    the library where it does not.
    """
    memories = [_memory(model, session, frame) for session in sessions]
    logits: dict[int, Logits] = {}
    for group in _of_one_shape(memories):
        seen = _attend(model, [memories[i] for i in group], features)
        outputs = _decode(model, seen, features)
        remembered = _remember(model, outputs, features)
        for row, index in enumerate(group):
            one = {key: value[row : row + 1] for key, value in outputs.items()}
            one |= {key: value[:, row : row + 1] for key, value in remembered.items()}
            _store(sessions[index], frame, one)
            logits[index] = Logits(one["pred_masks"], one["object_score_logits"])
    return [logits[index] for index in range(len(sessions))]


def _memory(model: Any, session: Any, frame: int) -> _Memory:
    pictures = model._gather_memory_frame_outputs(session, 0, frame)
    ages, pointers, oldest = model._get_object_pointers(
        session, 0, frame, num_total_frames=0, device=model.device, streaming=True
    )  # a stream has no total: the library does not read it
    kept = [(age, output) for age, output in pictures if output is not None]
    return _Memory(kept, pointers, ages, oldest)


def _of_one_shape(memories: list[_Memory]) -> Iterator[list[int]]:
    """Indices of memories that fit one tensor, at most MOST_TOGETHER at once."""
    groups: dict[tuple[int, int], list[int]] = defaultdict(list)
    for index, memory in enumerate(memories):
        groups[memory.shape].append(index)
    for group in groups.values():
        for first in range(0, len(group), MOST_TOGETHER):
            yield group[first : first + MOST_TOGETHER]


def _attend(model: Any, memories: list[_Memory], features: Vision) -> Float[Tensor, "b c h w"]:
    """The picture's features, conditioned on each session's memory."""
    count = len(memories)
    now, now_at = features["vision_feats"][-1], features["vision_pos_embeds"][-1]
    pictures = [picture for memory in memories for picture in memory.pictures]
    spatial, spatial_at = model._build_memory_attention_inputs(pictures, now.device)
    # session after session as if it were one long row of pointers: each has ages of its own
    pointers, pointers_at = model._process_object_pointers(
        [age for memory in memories for age in memory.pointer_ages],
        [pointer for memory in memories for pointer in memory.pointers],
        memories[0].oldest_pointer,
        batch_size=1,
        num_channels=model.hidden_dim,
        device=now.device,
    )
    memory = torch.cat([_rows(spatial, count), _rows([pointers], count)], dim=1)
    memory_at = torch.cat([_rows(spatial_at, count), _rows([pointers_at], count)], dim=1)
    attended = model.memory_attention(
        current_vision_features=now.expand(-1, count, -1),
        current_vision_position_embeddings=now_at.expand(-1, count, -1),
        memory=memory.to(now.dtype).transpose(0, 1),
        memory_posision_embeddings=memory_at.transpose(0, 1),  # the library's spelling
        num_object_pointer_tokens=pointers.shape[0] // count,
    )  # (1, b, hw, c)
    by_session: Tensor = attended.reshape(count, -1, model.hidden_dim).transpose(1, 2)
    return by_session.reshape(count, model.hidden_dim, *model.backbone_feature_sizes[-1])


def _rows(tokens: list[Tensor], count: int) -> Float[Tensor, "b t c"]:
    """Tokens (t, 1, c) of `count` sessions, one session's after the other's: a row for each."""
    return torch.cat(tokens).reshape(count, -1, tokens[0].shape[-1])


def _decode(model: Any, seen: Float[Tensor, "b c h w"], features: Vision) -> dict[str, Tensor]:
    """The best mask of each session, as the library's `_single_frame_forward` without a prompt.

    That one mixes the sessions of a batch where it takes the best of several masks.
    """
    count = len(seen)
    fine = [
        level.permute(1, 2, 0).reshape(1, -1, *size).expand(count, -1, -1, -1)
        for level, size in zip(
            features["vision_feats"][:-1], model.backbone_feature_sizes[:-1], strict=True
        )
    ]
    sparse, dense = _no_prompt(model, seen)
    masks, quality, tokens, presence = model.mask_decoder(
        image_embeddings=seen,
        image_positional_embeddings=model.get_image_wide_positional_embeddings().expand(
            count, -1, -1, -1
        ),
        sparse_prompt_embeddings=sparse.expand(count, -1, -1, -1),
        dense_prompt_embeddings=dense.expand(count, -1, -1, -1),
        multimask_output=model._use_multimask(False, None),
        high_resolution_features=fine,
    )  # (b, 1, m, a, b), (b, 1, m), (b, 1, m, c), (b, 1, 1)
    rows, best = torch.arange(count, device=seen.device), quality[:, 0].argmax(dim=-1)
    there = presence > 0
    mask = torch.where(there[..., None], masks[rows, 0, best][:, None], ABSENT)
    size = (model.image_size, model.image_size)
    large = torch.nn.functional.interpolate(mask.float(), size, mode="bilinear")
    pointer = model.object_pointer_proj(tokens[rows, 0, best][:, None])
    is_there = there.to(pointer.dtype)
    return {
        "pred_masks": mask,
        "object_pointer": is_there * pointer + (1 - is_there) * model.no_object_pointer,
        "high_res_masks": large.to(mask.dtype),
        "object_score_logits": presence,
    }


def _no_prompt(model: Any, like: Tensor) -> tuple[Tensor, Tensor]:
    """The embeddings of one padding point, which stand for no prompt at all."""
    nowhere = torch.zeros(1, 1, 1, 2, dtype=like.dtype, device=like.device)
    label = -torch.ones(1, 1, 1, dtype=torch.int32, device=like.device)
    sparse, dense = model.prompt_encoder(
        input_points=nowhere, input_labels=label, input_boxes=None, input_masks=None
    )
    return sparse, dense


def _remember(model: Any, outputs: dict[str, Tensor], features: Vision) -> dict[str, Tensor]:
    """The memory features of what was just seen, (hw, b, c)."""
    memory, memory_at = model._encode_new_memory(
        current_vision_feats=features["vision_feats"][-1].expand(
            -1, len(outputs["pred_masks"]), -1
        ),
        pred_masks_high_res=outputs["high_res_masks"],
        object_score_logits=outputs["object_score_logits"],
        is_mask_from_pts=False,
    )
    return {"maskmem_features": memory, "maskmem_pos_enc": memory_at}


def _store(session: Any, frame: int, output: dict[str, Tensor]) -> None:
    session.store_output(0, frame, output_value=output, is_conditioning_frame=False)
    session.frames_tracked_per_obj[0][frame] = {"reverse": False}
