# SPDX-License-Identifier: Apache-2.0
"""SAM 3: one network that finds every thing of a named concept and follows it.

transformers' streaming session neither forgets nor removes. Here it forgets what no later frame
reads (`len` of the pictures goes on counting those that are gone, since positions depend on it),
things that are no longer seen are removed, and duplicates are suppressed without the CUDA kernels
that the library would fetch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from worldsystem_segment.learned.mask_sessions import ObjectMask
from worldsystem_segment.learned.mask_tracker import Followed
from worldsystem_segment.learned.pixels import SAM3_MEAN, SAM3_STD, picture_masks, square_pixels
from worldsystem_segment.learned.pruning import prune

REMEMBERED = 64  # frames of lists that the library copies every frame
TEXT_LENGTH = 32

Tokens = Callable[[str], tuple[Tensor, Tensor]]  # text → input ids (1, 32), attention mask


class CountingFrames(dict[int, Any]):
    """Pictures by frame; `len` is how many there have been, whatever has been taken out."""

    seen = 0

    def __setitem__(self, frame: int, picture: Any) -> None:
        super().__setitem__(frame, picture)
        self.seen = max(self.seen, frame + 1)

    def __len__(self) -> int:
        return self.seen


@dataclass
class _Concepts:
    """Which phrases are looked for; ids are never given twice, as the library does."""

    ids: dict[str, int] = field(default_factory=dict)
    next: int = 0


class Sam3Tracker:
    """A `MaskTracker` by another network: `model` is a `Sam3VideoModel`; not thread-safe."""

    def __init__(
        self,
        model: Any,
        session_type: type,
        tokens: Tokens,
        max_objects: int = 20,
        lost_frames: int = 150,
    ) -> None:
        self._lost = lost_frames
        self._model = model.eval()
        self._session_type, self._tokens = session_type, tokens
        self._size = int(model.config.image_size)
        self._session: Any = None
        self._concepts = _Concepts()
        self._frame = self._last_object = -1
        model.max_num_objects = max_objects
        self._least: Mapping[str, float] = {}
        self._detect_all = model.run_detection
        model.run_detection = self._detect
        self.followed: dict[int, Followed] = {}
        self.problem = ""  # detection has no thread of its own: where it fails, `step` does
        self.retired = 0
        use_plain_suppression()

    @torch.inference_mode()
    def step(
        self, rgb: UInt8[np.ndarray, "h w 3"], phrases: Mapping[str, float]
    ) -> dict[int, ObjectMask]:
        """Masks of all things that are like a phrase by at least its least score, in the next
        picture of the video. An error costs the picture and all that is followed."""
        session = self._session_for(rgb.shape[:2])
        self._set_phrases(session, phrases)
        self._frame += 1
        if not session.prompts:
            return {}
        self._least = phrases
        least = min(phrases.values())
        self._model.score_threshold_detection = self._model.new_det_thresh = least
        device, dtype = self._model.device, self._model.dtype
        pixels = square_pixels(rgb, self._size, SAM3_MEAN, SAM3_STD, device).to(dtype)
        output = self._run(session, pixels)
        masks = {
            int(i): _mask(logits, rgb.shape, float(output.obj_id_to_tracker_score.get(i, 1.0)))
            for i, logits in output.obj_id_to_mask.items()
        }
        self._follow(session, output, masks)
        self._retire(session)
        self._forget(session)
        return {i: m for i, m in masks.items() if i in self.followed and m.area_px}

    def counters(self) -> dict[str, int]:
        """What was let go and why."""
        return {"objects_retired": self.retired}

    def close(self) -> None:
        """Nothing runs by itself."""

    def _session_for(self, shape: tuple[int, ...]) -> Any:
        if self._session is None:
            device = self._model.device
            self._session = self._session_type(
                video=None,
                video_height=shape[0],
                video_width=shape[1],
                inference_device=device,
                inference_state_device=device,
                video_storage_device=device,
                dtype=self._model.dtype,
            )
            self._session.processed_frames = CountingFrames()
            self._session.max_obj_id = self._last_object  # ids are given once
        return self._session

    def _run(self, session: Any, pixels: Tensor) -> Any:
        """The library's own pass. One that fails leaves objects half in its session, at which each
        later one would fail: another session follows."""
        try:
            return self._model(inference_session=session, frame=pixels, frame_idx=self._frame)
        except BaseException:
            self._last_object = session.max_obj_id
            self._session, self._concepts = None, _Concepts(next=self._concepts.next)
            self.retired += len(self.followed)
            self.followed.clear()
            raise

    def _set_phrases(self, session: Any, phrases: Collection[str]) -> None:
        """Add new concepts; one that is no longer asked for goes with its objects."""
        for phrase in [p for p in self._concepts.ids if p not in phrases]:
            concept = self._concepts.ids.pop(phrase)
            owners = [i for i, c in session.obj_id_to_prompt_id.items() if c == concept]
            for object_id in owners:
                self._remove(session, object_id)
            for table in (
                session.prompts,
                session.prompt_input_ids,
                session.prompt_embeddings,
                session.prompt_attention_masks,
            ):
                table.pop(concept, None)
        for phrase in [p for p in phrases if p not in self._concepts.ids]:
            concept, self._concepts.next = self._concepts.next, self._concepts.next + 1
            self._concepts.ids[phrase] = concept
            ids, mask = self._tokens(phrase)
            session.prompts[concept] = phrase
            session.prompt_input_ids[concept] = ids.to(self._model.device)
            session.prompt_attention_masks[concept] = mask.to(self._model.device)

    def _detect(self, inference_session: Any, **given: Any) -> dict[int, dict[str, Tensor]]:
        """In place of the library's, whose one least score is for all phrases.

        What is refused later than here has had a place among `max_objects`, and is born again with
        each picture.
        """
        kept = {}
        found = self._detect_all(inference_session=inference_session, **given)
        for concept, things in found.items():
            sure = things["scores"] >= self._least[inference_session.prompts[concept]]
            kept[concept] = {key: values[sure] for key, values in things.items()}
        return kept

    def _follow(self, session: Any, output: Any, masks: dict[int, ObjectMask]) -> None:
        for object_id in masks:
            concept = session.obj_id_to_prompt_id.get(object_id)
            phrase = session.prompts.get(concept, "object")
            score = float(output.obj_id_to_score.get(object_id, 0.0))
            if object_id not in self.followed:
                self.followed[object_id] = Followed(object_id, self._frame, Counter())
            votes = {phrase: max(score, 1e-3)}  # a Counter of floats, which its type does not know
            followed = self.followed[object_id]
            followed.votes.update(votes)
            followed.unseen = 0 if masks[object_id].area_px else followed.unseen + 1

    def _retire(self, session: Any) -> None:
        """Streaming never removes what is no longer seen. The keep-alive counter tells what no
        detection confirms; of what has no mask, as out of view, it counts nothing."""
        lowest = self._model.min_trk_keep_alive
        for object_id, alive in list(session.trk_keep_alive.items()):
            followed = self.followed.get(object_id)
            lost = followed is not None and followed.unseen > self._lost
            if lost or alive <= max(0, lowest):
                self._remove(session, object_id)

    def _remove(self, session: Any, object_id: int) -> None:
        frames = session.processed_frames
        session.remove_object(object_id)
        if session.processed_frames is not frames:  # the last one: the session was emptied
            session.processed_frames = frames
        for table in (session.obj_id_to_score, session.trk_keep_alive, session.obj_first_frame_idx,
                      session.obj_id_to_last_occluded, session.unmatched_frame_inds):  # fmt: skip
            table.pop(object_id, None)
        if self.followed.pop(object_id, None):
            self.retired += 1

    def _forget(self, session: Any) -> None:
        prune(session, self._frame, self._model.config.tracker_config)
        oldest = self._frame - REMEMBERED
        for table in (session.obj_id_to_tracker_score_frame_wise, session.suppressed_obj_ids):
            for frame in [f for f in table if f < self._frame]:
                del table[frame]
        for lists in (session.unmatched_frame_inds, session.overlap_pair_to_frame_inds):
            for key in list(lists):
                lists[key] = [f for f in lists[key] if f >= oldest]
                if not lists[key]:
                    del lists[key]


def _mask(logits: Tensor, shape: tuple[int, ...], presence: float) -> ObjectMask:
    mask = picture_masks(logits.reshape(1, 1, *logits.shape[-2:]), shape[0], shape[1])[0]
    return ObjectMask(mask, presence)


def use_plain_suppression() -> None:
    """Suppress duplicate detections in plain torch: without its kernels the library keeps all."""
    from transformers.models.sam3_video import modeling_sam3_video as library

    library.nms_masks = nms_masks


def nms_masks(
    pred_probs: Float[Tensor, "n"],
    pred_masks: Float[Tensor, "n h w"],
    prob_threshold: float,
    iou_threshold: float,
) -> Bool[Tensor, "n"]:
    """Which detections to keep: above the threshold, and like no better one; the library's name."""
    keep = torch.zeros_like(pred_probs, dtype=torch.bool)
    chosen = torch.nonzero(pred_probs > prob_threshold).flatten()
    chosen = chosen[pred_probs[chosen].argsort(descending=True)]
    flat = (pred_masks > 0).flatten(1).float()
    kept: list[int] = []
    for index in chosen.tolist():
        own = flat[index]
        both = [float((own * flat[k]).sum()) for k in kept]
        unions = [float(own.sum() + flat[k].sum()) - b for k, b in zip(kept, both, strict=True)]
        if all(b <= iou_threshold * max(u, 1.0) for b, u in zip(both, unions, strict=True)):
            kept.append(index)
            keep[index] = True
    return keep
