# SPDX-License-Identifier: Apache-2.0
"""Masks of many objects through a video: one SAM 2 session for each, the encoder run once a frame.

Sessions of their own make objects come and go at any frame without touching one another (in a
shared session a new prompt changes the others' masks), and what an object no longer needs goes with
its session. A prompted object goes through the library alone, the others side by side.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from worldsystem_segment.learned.batched_masks import Logits, can_run_together, follow_together
from worldsystem_segment.learned.pixels import picture_masks
from worldsystem_segment.learned.pruning import prune
from worldsystem_segment.learned.vision_encoder import Vision, VisionEncoder

Box = tuple[float, float, float, float]  # x0 y0 x1 y1 [px], or fractions where that is said


@dataclass(frozen=True, eq=False)
class ObjectMask:
    """One object's mask in one picture; `presence` is the logit of its being there."""

    mask: Bool[np.ndarray, "h w"]
    presence: float

    @property
    def area_px(self) -> int:
        return int(self.mask.sum())


class MaskSessions:
    """Follows objects by their masks; not thread-safe.

    `model` is a `Sam2VideoModel` or `EdgeTamVideoModel` (transformers), in whatever precision it
    is. An object is given by a box, or by a mask, in the picture of the next `step`. `forget` is
    what a session forgets after each picture. Objects without a prompt are followed together where
    the network can, or `one_by_one`, which gives the same but for rounding.
    """

    def __init__(
        self,
        model: Any,  # transformers' own types
        session_type: type,
        forget: Callable[[Any, int, Any], None] = prune,
        *,
        one_by_one: bool = False,
    ) -> None:
        self._forget = forget
        self._together = can_run_together(model) and not one_by_one
        self._model = model.eval()
        self._session_type = session_type
        self._size = (
            int(model.config.vision_config.image_size)
            if hasattr(model.config.vision_config, "image_size")
            else int(model.config.image_size)
        )
        self._sessions: dict[int, Any] = {}
        self._prompts: dict[int, Box | Bool[np.ndarray, "h w"]] = {}
        self.frame = -1
        self._encoder = VisionEncoder(model, self._size)
        # all anchors would be attended to, so that time grew with each new one
        model.config.max_cond_frame_num = 4

    def __len__(self) -> int:
        return len(self._sessions.keys() | self._prompts.keys())

    @property
    def encoder_runs(self) -> int:
        return self._encoder.runs

    @property
    def ids(self) -> set[int]:
        """The objects that are followed, and those that will be from the next picture on."""
        return set(self._sessions) | set(self._prompts)

    def prompt(self, object_id: int, where: Box | Bool[np.ndarray, "h w"]) -> None:
        """Begin to follow an object, or anchor it anew, at the next picture."""
        self._prompts[object_id] = where

    def remove(self, object_id: int) -> None:
        """Stop following an object; the others do not notice."""
        self._sessions.pop(object_id, None)
        self._prompts.pop(object_id, None)

    @torch.inference_mode()
    def step(self, rgb: UInt8[np.ndarray, "h w 3"]) -> dict[int, ObjectMask]:
        """The masks of all objects in the next picture. Without objects no network is run.

        An error costs the picture, and objects whose prompts did not get through.
        """
        self.frame += 1
        if not len(self):
            return {}
        pixels = self._encoder.pixels(rgb)
        features = self._encoder(pixels)
        alone = sorted(self._prompts if self._together else self.ids)
        followed = sorted(self.ids - set(alone))
        logits = self._run_each_alone(alone, pixels, features, rgb.shape)
        sessions = [self._sessions[i] for i in followed]
        found = follow_together(self._model, sessions, self.frame, features)
        logits |= dict(zip(followed, found, strict=True))
        for session in self._sessions.values():
            self._forget(session, self.frame, self._model.config)
        return _object_masks(logits, rgb.shape)

    def sessions(self) -> dict[int, Any]:
        """The sessions by object, for tests."""
        return self._sessions

    def _run_each_alone(
        self, ids: list[int], pixels: Tensor, features: Vision, shape: tuple[int, ...]
    ) -> dict[int, Logits]:
        """The objects one after the other, each with its prompt, if any."""
        unanchored = set(self._prompts)
        logits = {}
        try:
            for object_id in ids:
                session = self._session_of(object_id, shape)
                if object_id in self._prompts:
                    self._anchor(session, self._prompts[object_id], shape)
                logits[object_id] = self._run_alone(session, pixels, features)
                self._prompts.pop(object_id, None)
        finally:  # a session whose prompt did not get through would fail at each later picture
            for object_id in unanchored - logits.keys():
                self.remove(object_id)
        return logits

    def _run_alone(self, session: Any, pixels: Tensor, features: Vision) -> Logits:
        """The library's own pass for one object, with the encoder's features given."""
        session.cache.cache_vision_features(self.frame, features)
        output = self._model(inference_session=session, frame=pixels, frame_idx=self.frame)
        session.cache.clear_all()
        return Logits(output.pred_masks, output.object_score_logits)

    def _session_of(self, object_id: int, shape: tuple[int, ...]) -> Any:
        """An object's session. Later pictures may be of another size: it only knows squares."""
        if object_id not in self._sessions:
            device = self._model.device
            self._sessions[object_id] = self._session_type(
                video=None,
                video_height=shape[0],
                video_width=shape[1],
                inference_device=device,
                inference_state_device=device,
                video_storage_device=device,
                dtype=self._model.dtype,
            )
        return self._sessions[object_id]

    def _anchor(
        self, session: Any, where: Box | Bool[np.ndarray, "h w"], shape: tuple[int, ...]
    ) -> None:
        index = session.obj_id_to_idx(1)
        if isinstance(where, np.ndarray):
            mask = torch.tensor(where)[None, None].float()
            size = (self._size, self._size)
            fitted = torch.nn.functional.interpolate(mask, size, mode="bilinear") > 0.5
            session.add_mask_inputs(index, self.frame, fitted.to(session.inference_device).float())
            session.remove_point_inputs(index, self.frame)
        else:
            session.add_point_inputs(index, self.frame, self._box_points(where, shape, session))
            session.remove_mask_inputs(index, self.frame)
        session.obj_with_new_inputs = [1]

    def _box_points(self, box: Box, shape: tuple[int, ...], session: Any) -> dict[str, Tensor]:
        # SAM takes a box as two points, labelled as its top left and its bottom right corner
        scale: Float[Tensor, "2"] = torch.tensor([self._size / shape[1], self._size / shape[0]])
        corners = torch.tensor(box).float().reshape(1, 1, 2, 2) * scale
        device = session.inference_device
        labels = torch.tensor([[[2, 3]]], dtype=torch.int32)
        return {"point_coords": corners.to(device), "point_labels": labels.to(device)}


def _object_masks(logits: dict[int, Logits], shape: tuple[int, ...]) -> dict[int, ObjectMask]:
    """Masks of the picture, by object; the device is waited for once, not for each object."""
    ids = sorted(logits)
    masks = torch.cat([logits[i].mask for i in ids])
    presence = torch.cat([logits[i].presence.flatten() for i in ids])
    there = torch.where(presence[:, None, None, None] > 0, masks, -1.0)
    whole = picture_masks(there, shape[0], shape[1])
    scores = presence.float().tolist()
    return {i: ObjectMask(whole[k], scores[k]) for k, i in enumerate(ids)}
