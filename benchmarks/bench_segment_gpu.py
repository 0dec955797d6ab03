# SPDX-License-Identifier: Apache-2.0
"""Networks of segmentation at full size, random weights: ours against the library used naively.

Needs a CUDA device; `benchmarks/gpu.sh` runs it. Grounding DINO tiny and SAM 2.1 small. Three ways
of following objects: side by side in one pass, one after the other with the encoder shared, and
as the library's examples do: one session for all objects, and nothing forgotten.

    bench_segment_gpu.py --tiny     tiny networks on the CPU, to see that it runs; writes nothing
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from harness import QUICK, Benchmark

from worldsystem_segment.learned.detector import GroundingDetector
from worldsystem_segment.learned.mask_sessions import MaskSessions
from worldsystem_segment.learned.pixels import SAM2_MEAN, SAM2_STD, square_pixels

COUNTS = (1, 4, 16)
SHAPE = (480, 640, 3)


@dataclass(frozen=True)
class Setting:
    """Which networks run, and for how many pictures after how many that are not counted."""

    masks: Any  # a Sam2VideoModel
    detector: GroundingDetector
    frames: int
    warm_up: int
    note: str


def main() -> None:
    """Measure detection, and masks of 1, 4 and 16 objects, all ways in turn."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tiny", action="store_true", help="tiny networks on the CPU")
    tiny = parser.parse_args().tiny
    setting = _tiny() if tiny else _full_size()
    bench = Benchmark("segment_gpu", id_prefix="segment")
    measure_detector(bench, setting)
    for count in COUNTS:
        measure_masks(bench, setting, count)
    if not tiny:
        bench.write()


def measure_detector(bench: Benchmark, setting: Setting) -> None:
    """Grounding DINO at 800 px with four phrases, as it runs beside the video."""
    picture = _picture(0)
    phrases = ("red car", "person", "chair", "dog")
    times = []
    for _ in range(setting.warm_up + setting.frames // 2):
        start = time.perf_counter()
        setting.detector.detect(picture, phrases, 0.3)
        _wait(setting)
        times.append(1e3 * (time.perf_counter() - start))
    note = "Grounding DINO tiny, bf16, 1066x800, 4 phrases, random weights"
    bench.add("detector_ms", times[setting.warm_up :], "ms", note=note)


def measure_masks(bench: Benchmark, setting: Setting, count: int) -> None:
    """`count` objects that are followed, each picture's masks on the CPU at its end."""
    together = _ours_ms(setting, count)
    one_by_one = _ours_ms(setting, count, one_by_one=True)
    naive = _naive_ms(setting, count)
    note = f"{setting.note}, {count} objects, random weights, 640x480"
    bench.add(f"masks_{count}_ms", together, "ms", note=note)
    bench.add(f"masks_{count}_fps", 1e3 / statistics.median(together), "1/s", note=note)
    alone = "the same, one object after the other"
    bench.add(f"masks_{count}_one_by_one_ms", one_by_one, "ms", note=alone)
    library = "library: one session for all objects, nothing forgotten"
    bench.add(f"masks_{count}_naive_ms", naive, "ms", note=library)
    ratio = statistics.median(naive) / statistics.median(together)
    bench.add(f"masks_{count}_speedup", ratio, "x", note=library)


def _full_size() -> Setting:
    from transformers import GroundingDinoConfig, GroundingDinoForObjectDetection

    config = GroundingDinoConfig()  # the defaults are the tiny model's
    model = GroundingDinoForObjectDetection(config).to("cuda", torch.bfloat16)
    detector = GroundingDetector(model, _SpelledTokens())
    frames, warm_up = (12, 4) if QUICK else (60, 20)  # memories are full after sixteen
    return Setting(_sam2_small(), detector, frames, warm_up, "SAM 2.1 small, bf16")


def _tiny() -> Setting:
    sys.path.insert(0, str(Path(__file__).parents[1] / "test" / "segment"))
    from tiny_networks import tiny_dino, tiny_sam2

    model, tokens = tiny_dino()
    detector = GroundingDetector(model, tokens, short_edge=64)
    return Setting(tiny_sam2(), detector, 4, 2, "tiny, CPU")


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


@cache
def _picture(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 255, SHAPE, np.uint8)


def _box(index: int) -> tuple[float, float, float, float]:
    x, y = 20.0 + 140 * (index % 4), 20.0 + 110 * (index // 4)
    return x, y, x + 100, y + 80


def _ours_ms(setting: Setting, count: int, *, one_by_one: bool = False) -> list[float]:
    from transformers import Sam2VideoInferenceSession

    sessions = MaskSessions(setting.masks, Sam2VideoInferenceSession, one_by_one=one_by_one)
    for index in range(count):
        sessions.prompt(index, _box(index))
    return _timed(setting, lambda frame: sessions.step(_picture(frame % 8)))


@torch.inference_mode()
def _naive_ms(setting: Setting, count: int) -> list[float]:
    """One session for all objects, as the library's examples make it; nothing goes."""
    from transformers import Sam2VideoInferenceSession

    model = setting.masks
    follower = MaskSessions(model, Sam2VideoInferenceSession)
    session = follower._session_of(1, SHAPE)
    for number in range(count):
        index = session.obj_id_to_idx(number + 1)
        session.add_point_inputs(index, 0, follower._box_points(_box(number), SHAPE, session))
    session.obj_with_new_inputs = list(range(1, count + 1))

    def step(frame: int) -> None:
        picture, side = _picture(frame % 8), model.image_size
        pixels = square_pixels(picture, side, SAM2_MEAN, SAM2_STD, model.device).to(model.dtype)
        output = model(inference_session=session, frame=pixels, frame_idx=frame)
        masks = torch.nn.functional.interpolate(output.pred_masks.float(), SHAPE[:2])
        (masks > 0).cpu()

    return _timed(setting, step)


def _timed(setting: Setting, step: Any) -> list[float]:
    times = []
    for frame in range(setting.warm_up + setting.frames):
        start = time.perf_counter()
        step(frame)
        _wait(setting)
        times.append(1e3 * (time.perf_counter() - start))
    return times[setting.warm_up :]


def _wait(setting: Setting) -> None:
    if setting.masks.device.type == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
