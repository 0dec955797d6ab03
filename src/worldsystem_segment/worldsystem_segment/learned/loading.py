# SPDX-License-Identifier: Apache-2.0
"""Networks from folders of published weights; nothing is ever downloaded."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from worldsystem_core.errors import BackendError, MissingDependency, WeightsMissing
from worldsystem_core.usable_gpu import gpu_problem
from worldsystem_segment.backend import SegmentBackend
from worldsystem_segment.config import SegmentConfig
from worldsystem_segment.learned.backend import LearnedBackend
from worldsystem_segment.learned.detection_thread import DetectionThread
from worldsystem_segment.learned.detector import GroundingDetector
from worldsystem_segment.learned.mask_sessions import MaskSessions
from worldsystem_segment.learned.mask_tracker import MaskTracker
from worldsystem_segment.learned.sam3_tracker import TEXT_LENGTH, Sam3Tracker

MASKS = {"sam2_video": "Sam2Video", "edgetam_video": "EdgeTamVideo", "sam2": "Sam2Video"}
DETECTORS = {"grounding-dino": "GroundingDino", "mm-grounding-dino": "MMGroundingDino"}
VOCABULARIES = ("tokenizer.json", "vocab.txt", "vocab.json")
DINO_FILES = "IDEA-Research/grounding-dino-tiny (config.json, model.safetensors, its tokenizer)"
SAM2_FILES = "facebook/sam2.1-hiera-small (config.json, model.safetensors)"
SAM3_FILES = "facebook/sam3 (config.json, model.safetensors, its tokenizer)"


def grounded_sam2(config: SegmentConfig) -> SegmentBackend:
    """Grounding DINO's boxes, SAM 2.1's or EdgeTAM's masks."""
    device = device_of(config.device)
    name = _family(config.detector, DETECTORS, "detector", DINO_FILES)
    family = _family(config.masks, MASKS, "masks", SAM2_FILES)
    transformers = _transformers()
    with _whole(config.detector, "detector", DINO_FILES):
        detector = _network(transformers, f"{name}ForObjectDetection", config.detector, device)
        tokenizer = _tokenizer(transformers, config.detector)
    with _whole(config.masks, "masks", SAM2_FILES):
        model = _network(transformers, f"{family}Model", config.masks, device)
    sessions = MaskSessions(model, getattr(transformers, f"{family}InferenceSession"))
    detections = DetectionThread(GroundingDetector(detector, tokenizer))
    return LearnedBackend(config, mask_tracker(config, sessions, detections))


def sam3(config: SegmentConfig) -> SegmentBackend:
    """SAM 3's concepts; the weights have a licence of their own (SAM License) and are gated."""
    device = device_of(config.device)
    name = _family(config.masks, {"sam3_video": "Sam3Video"}, "masks", SAM3_FILES)
    transformers = _transformers()
    with _whole(config.masks, "masks", SAM3_FILES):
        model = _network(transformers, f"{name}Model", config.masks, device)
        tokenizer = _tokenizer(transformers, config.masks)

    def tokens(text: str) -> tuple[torch.Tensor, torch.Tensor]:
        padded = {"padding": "max_length", "max_length": TEXT_LENGTH, "truncation": True}
        encoded = tokenizer([text], return_tensors="pt", **padded)
        return encoded["input_ids"], encoded["attention_mask"]

    session_type = getattr(transformers, f"{name}InferenceSession")
    tracker = Sam3Tracker(model, session_type, tokens, config.max_followed, config.lost_frames)
    return LearnedBackend(config, tracker)


def mask_tracker(config: SegmentConfig, masks: Any, detections: DetectionThread) -> MaskTracker:
    """A tracker with the settings of `config`."""
    return MaskTracker(
        masks,
        detections,
        every=config.detect_every,
        max_objects=config.max_followed,
        lost_frames=config.lost_frames,
    )


def device_of(wanted: str) -> str:
    """`cuda` where there is one and it is not refused; a BackendError where it is missing."""
    problem = gpu_problem() if wanted != "cpu" else ""
    if wanted == "cuda" and problem:
        raise BackendError(f"segmenter.device is cuda, but {problem}; set it to cpu or auto")
    return "cpu" if wanted == "cpu" or problem else "cuda"


def _network(transformers: Any, name: str, folder: str, device: str) -> Any:
    """The network in evaluation mode: half precision on CUDA."""
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    network = getattr(transformers, name).from_pretrained(
        folder, local_files_only=True, dtype=dtype
    )
    return network.to(device).eval()


def _tokenizer(transformers: Any, folder: str) -> Any:
    """The library makes one that knows no word where its files are missing."""
    if not any((Path(folder) / name).is_file() for name in VOCABULARIES):
        raise FileNotFoundError(f"none of {', '.join(VOCABULARIES)} is there")
    return transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)


@contextmanager
def _whole(folder: str, setting: str, files: str) -> Iterator[None]:
    """What the library cannot read is a `BackendError` that says what the folder should hold."""
    from safetensors import SafetensorError

    try:
        yield
    except torch.OutOfMemoryError as error:
        raise BackendError(
            f"the GPU has too little memory for '{folder}' ({error}); end other programs on it, "
            "or set segmenter.device=cpu"
        ) from error
    except ImportError as error:  # as published, EdgeTAM's encoder is timm's
        raise BackendError(
            f"segmenter.{setting}: '{folder}' needs a library that is not installed ({error})"
        ) from error
    except RuntimeError as error:  # sizes differ; the library has logged of which tensors
        raise BackendError(
            f"segmenter.{setting}: '{folder}' cannot be loaded ({error}); its files must be of one "
            f"model page, such as {files}"
        ) from error
    except (OSError, ValueError, SafetensorError) as error:
        raise BackendError(
            f"segmenter.{setting}: '{folder}' is not whole ({error}); it needs all files of a "
            f"model page, such as {files}"
        ) from error


def _family(folder: str, known: dict[str, str], setting: str, files: str) -> str:
    path = Path(folder) / "config.json"
    if not folder or not path.is_file():
        raise WeightsMissing(
            f"segmenter.{setting}",
            folder or "(no folder is set)",
            cure=f"set segmenter.{setting} to a folder as published, such as {files}",
        )
    with _whole(folder, setting, files):
        kind = str(json.loads(path.read_text()).get("model_type", "")).lower()
    if kind not in known:
        raise BackendError(
            f"segmenter.{setting}: '{folder}' holds a '{kind}'; known: {sorted(known)}"
        )
    return known[kind]


def _transformers() -> Any:
    try:
        import transformers
    except ImportError as error:
        raise MissingDependency(
            "transformers", "segmentation with networks", "pip install transformers"
        ) from error
    try:
        from transformers import Sam2VideoModel  # noqa: F401 - fails where torchvision is broken
    except (ImportError, RuntimeError) as error:  # the library turns the latter into the former
        raise BackendError(
            f"transformers cannot import its vision models ({error}); a torchvision that does not "
            "fit this torch does that: run `pip uninstall torchvision`"
        ) from error
    return transformers
