# SPDX-License-Identifier: Apache-2.0
"""Boxes for phrases: Grounding DINO, and its relatives that load as it (MM-Grounding-DINO, LLMDet).

The library pastes every token above a threshold into a label, so that two phrases may come back as
one. Here a phrase's score is the best of its own tokens, and a box's label is exactly one phrase.
"""

from __future__ import annotations

import os
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import cv2
import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from worldsystem_core.cuda_graphs import Computation, Replayed
from worldsystem_segment.learned.mask_sessions import Box
from worldsystem_segment.learned.pixels import dino_pixels

SEPARATORS = (0, 101, 102, 1012, 1029)  # padding, [CLS], [SEP], '.', '?': fixed in the model
MAX_TOKENS = 256
OVERLAP = 0.7  # IoU at which two boxes are one
_NO_CHECKS = "TRANSFORMERS_DISABLE_TORCH_CHECK", "1"  # they wait for the device at each layer


@dataclass(frozen=True)
class Found:
    """One box, the phrase it is most like, and how much it is like each phrase, in [0, 1]."""

    box: Box
    label: str
    score: float
    scores: tuple[tuple[str, float], ...]


class Detector(Protocol):
    """Finds boxes in one picture; may be slow, and runs in a thread of its own."""

    def detect(
        self,
        rgb: UInt8[np.ndarray, "h w 3"],
        phrases: Sequence[str],
        least: float | Sequence[float],
    ) -> list[Found]:
        """Boxes [px] of things that are like a phrase by at least `least`, or its own of these."""
        ...


class GroundingDetector:
    """Grounding DINO: `model` and `tokenizer` are transformers' own; for one thread.

    On a CUDA device its 2,000 small kernels are recorded once for each size of picture and length
    of text, and then replayed: to queue them one by one takes the interpreter three times as long
    as the device needs.
    """

    def __init__(self, model: Any, tokenizer: Any, short_edge: int = 800) -> None:
        self._model = model.eval()
        self._tokenizer = tokenizer
        self._short_edge = short_edge
        self._run: Computation = self._compute
        if torch.device(model.device).type == "cuda":
            os.environ.setdefault(*_NO_CHECKS)
            self._run = Replayed(self._compute)

    @torch.inference_mode()
    def detect(
        self,
        rgb: UInt8[np.ndarray, "h w 3"],
        phrases: Sequence[str],
        least: float | Sequence[float],
    ) -> list[Found]:
        """See `Detector`; phrases that do not fit into one text are asked for in several passes."""
        height, width = rgb.shape[:2]
        longest, device = round(self._short_edge * 1333 / 800), self._model.device
        pixels = dino_pixels(rgb, self._short_edge, longest, device=device).to(self._model.dtype)
        boxes: list[Tensor] = []
        scores: list[Tensor] = []
        before = 0
        for part in self._chunks(phrases):
            ids, mask = self._tokens(part)
            logits, centred = self._run(None, pixels, ids, mask)
            boxes.append(_corners(centred[0].float(), width, height))
            own = phrase_scores(logits[0].float(), ids[0], len(part))
            whole = torch.zeros(len(own), len(phrases))
            whole[:, before : before + len(part)] = own.cpu()
            scores.append(whole)
            before += len(part)
        if not boxes:
            return []
        return _kept(torch.cat(boxes).cpu().numpy(), torch.cat(scores).numpy(), phrases, least)

    def _compute(
        self, _: Hashable, pixels: Tensor, ids: Tensor, mask: Tensor
    ) -> tuple[Tensor, ...]:
        output = self._model(pixel_values=pixels, input_ids=ids, attention_mask=mask)
        return output.logits, output.pred_boxes

    def _tokens(self, phrases: Sequence[str]) -> tuple[Tensor, Tensor]:
        text = ". ".join(_words(phrase) for phrase in phrases) + "."
        encoded = self._tokenizer([text], return_tensors="pt")
        device = self._model.device
        return encoded["input_ids"].to(device), encoded["attention_mask"].to(device)

    def _chunks(self, phrases: Sequence[str]) -> list[list[str]]:
        longest = min(MAX_TOKENS, int(self._model.config.max_text_len))
        chunks: list[list[str]] = []
        for phrase in phrases:
            trial = [*chunks[-1], phrase] if chunks else [phrase]
            if chunks and self._tokens(trial)[0].shape[1] <= longest:
                chunks[-1] = trial
            else:
                chunks.append([phrase])
        return chunks


def _words(phrase: str) -> str:
    """The phrase without what would end it; never nothing, so that each has its place."""
    return phrase.replace(".", " ").replace("?", " ").strip() or "-"


def phrase_scores(
    logits: Float[Tensor, "q t"], token_ids: Int[Tensor, "n"], count: int
) -> Float[Tensor, "q p"]:
    """Each query's likeness to each of `count` phrases: the best of the phrase's tokens."""
    scores = torch.zeros(len(logits), count)
    spans, start = [], None
    for index, token in enumerate([*token_ids.tolist(), SEPARATORS[0]]):
        if token in SEPARATORS:
            if start is not None:
                spans.append((start, index))
            start = None
        elif start is None:
            start = index
    probability = torch.sigmoid(logits)
    for phrase, (first, end) in enumerate(spans[:count]):
        if first < probability.shape[1]:
            scores[:, phrase] = probability[:, first:end].max(dim=1).values
    return scores


def _corners(boxes: Float[Tensor, "q 4"], width: int, height: int) -> Float[Tensor, "q 4"]:
    centre, half = boxes[:, :2], 0.5 * boxes[:, 2:]
    corners = torch.cat([centre - half, centre + half], dim=1).clamp(0.0, 1.0)
    return corners * torch.tensor([width, height, width, height], device=boxes.device)


def _kept(
    boxes: Float[np.ndarray, "q 4"],
    scores: Float[np.ndarray, "q p"],
    phrases: Sequence[str],
    least: float | Sequence[float],
) -> list[Found]:
    """Boxes above their phrase's threshold, best first, and of those that overlap the best."""
    sizes = boxes[:, 2:] - boxes[:, :2]
    reached = np.where(scores >= np.broadcast_to(least, len(phrases)), scores, -1.0)
    best = reached.max(axis=1)
    usable = np.flatnonzero((sizes >= 2).all(axis=1) & (best >= 0.0))
    rectangles = np.hstack([boxes[:, :2], sizes])[usable].tolist()
    chosen = cv2.dnn.NMSBoxes(rectangles, best[usable].tolist(), 0.0, OVERLAP)
    found: list[Found] = []
    for query in usable[np.asarray(chosen, dtype=np.int64)]:
        x0, y0, x1, y1 = boxes[query].tolist()
        label = phrases[int(reached[query].argmax())]
        own = np.where(scores[query] > best[query], 0.0, scores[query])  # refused: no vote for it
        pairs = zip(phrases, own.tolist(), strict=True)
        found.append(Found((x0, y0, x1, y1), label, float(best[query]), tuple(pairs)))
    return found


def scaled_box(box: Box, across: float, down: float) -> Box:
    """A box in a picture that is so many times as wide and as high."""
    return box[0] * across, box[1] * down, box[2] * across, box[3] * down


def box_iou(a: Box, b: Box) -> float:
    """Intersection over union of two boxes."""
    across = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    down = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    both = across * down
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both
    return both / union if union > 0 else 0.0
