# SPDX-License-Identifier: Apache-2.0
"""Networks of segmentation at full size, random weights: ours against the library used naively.

Needs a CUDA device; `benchmarks/gpu.sh` runs it. Grounding DINO tiny and SAM 2.1 small. The naive
way runs the encoder for each object's session and forgets nothing.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

import numpy as np
import torch
from harness import QUICK, Benchmark

from worldsystem_segment.learned.detector import GroundingDetector
from worldsystem_segment.learned.mask_sessions import MaskSessions
from worldsystem_segment.learned.pixels import SAM2_MEAN, SAM2_STD, square_pixels

COUNTS = (1, 4, 16)
FRAMES, WARM_UP = (12, 4) if QUICK else (60, 10)
SHAPE = (480, 640, 3)


def main() -> None:
    """Measure detection, and masks of 1, 4 and 16 objects, both ways in turn."""
    bench = Benchmark("segment_gpu", id_prefix="segment")
    model = _sam2_small()
    measure_detector(bench)
    for count in COUNTS:
        ours, naive = _ours_ms(model, count), _naive_ms(model, count)
        note = f"SAM 2.1 small, bf16, {count} objects, random weights, 640x480"
        bench.add(f"masks_{count}_ms", ours, "ms", note=note)
        bench.add(f"masks_{count}_fps", 1e3 / statistics.median(ours), "1/s", note=note)
        ratio = statistics.median(naive) / statistics.median(ours)
        bench.add(f"masks_{count}_speedup", ratio, "x", note="library: encoder for each object")
    bench.write()


def measure_detector(bench: Benchmark) -> None:
    """Grounding DINO tiny at 800 px with four phrases, as it runs beside the video."""
    from transformers import GroundingDinoConfig, GroundingDinoForObjectDetection

    config = GroundingDinoConfig()  # the defaults are the tiny model's
    model = GroundingDinoForObjectDetection(config).to("cuda", torch.bfloat16)
    detector = GroundingDetector(model, _SpelledTokens())
    picture = _picture(0)
    times = []
    for _ in range(WARM_UP + FRAMES // 2):
        start = time.perf_counter()
        detector.detect(picture, ("red car", "person", "chair", "dog"), 0.3)
        torch.cuda.synchronize()
        times.append(1e3 * (time.perf_counter() - start))
    note = "Grounding DINO tiny, bf16, 1066x800, 4 phrases, random weights"
    bench.add("detector_ms", times[WARM_UP:], "ms", note=note)


class _SpelledTokens:
    """Stands for the tokenizer, whose vocabulary comes with the weights: a number for each word."""

    def __call__(self, texts: list[str], return_tensors: str) -> dict[str, torch.Tensor]:
        words = texts[0].replace(".", " . ").split()
        body = [1012 if w == "." else 2000 + sum(map(ord, w)) for w in words]
        ids = torch.tensor([[101, *body, 102]])
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def _sam2_small() -> Any:
    from transformers import Sam2VideoConfig, Sam2VideoModel

    config = Sam2VideoConfig()
    backbone = config.vision_config.backbone_config
    backbone.blocks_per_stage = [1, 2, 11, 2]
    backbone.global_attention_blocks = [7, 10, 13]
    torch.manual_seed(0)
    return Sam2VideoModel(config).to("cuda", torch.bfloat16).eval()


def _picture(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 255, SHAPE, np.uint8)


def _box(index: int) -> tuple[float, float, float, float]:
    x, y = 20.0 + 140 * (index % 4), 20.0 + 110 * (index // 4)
    return x, y, x + 100, y + 80


def _ours_ms(model: Any, count: int) -> list[float]:
    from transformers import Sam2VideoInferenceSession

    sessions = MaskSessions(model, Sam2VideoInferenceSession)
    for index in range(count):
        sessions.prompt(index, _box(index))
    return _timed(lambda frame: sessions.step(_picture(frame % 8)))


@torch.inference_mode()
def _naive_ms(model: Any, count: int) -> list[float]:
    """A session for each object as the examples make it: features are not shared, nothing goes."""
    from transformers import Sam2VideoInferenceSession

    followers = [MaskSessions(model, Sam2VideoInferenceSession) for _ in range(count)]
    sessions = []
    for index, follower in enumerate(followers):
        session = follower._session_of(1, SHAPE)
        follower.frame = 0
        follower._anchor(session, _box(index), SHAPE)
        sessions.append(session)

    def step(frame: int) -> None:
        pixels = square_pixels(_picture(frame % 8), 1024, SAM2_MEAN, SAM2_STD)
        pixels = pixels.to("cuda", torch.bfloat16)
        for session in sessions:
            output = model(inference_session=session, frame=pixels, frame_idx=frame)
            masks = torch.nn.functional.interpolate(output.pred_masks.float(), SHAPE[:2])
            (masks > 0).cpu()

    return _timed(step)


def _timed(step: Any) -> list[float]:
    times = []
    for frame in range(WARM_UP + FRAMES):
        start = time.perf_counter()
        step(frame)
        torch.cuda.synchronize()
        times.append(1e3 * (time.perf_counter() - start))
    return times[WARM_UP:]


if __name__ == "__main__":
    main()
