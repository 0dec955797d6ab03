# SPDX-License-Identifier: Apache-2.0
"""Both networks, ready to run: what the pipelines call."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor, nn

from worldsystem_core.cuda_graphs import Computation, Replayed
from worldsystem_core.errors import BackendError
from worldsystem_slam3r.model.decoder import MultiviewBlock, Side
from worldsystem_slam3r.model.encoder import EncoderBlock
from worldsystem_slam3r.model.heads import PointMap
from worldsystem_slam3r.model.i2p import ImageToPoints
from worldsystem_slam3r.model.l2w import LocalToWorld
from worldsystem_slam3r.model.retrieval import candidate_scores

Net = TypeVar("Net", bound=nn.Module)

IN_FLOAT32 = ("downstream_head", "corr_score", "ponit_embedder")
"""Layers that coordinates, confidences or scores pass through: too coarse in 16 bits."""

ENCODE_AT_ONCE = 12
"""Pictures encoded in one call: as many as were encoded together in training."""


class Networks:
    """Image-to-points and local-to-world on one device; nothing here keeps state between calls.

    Tensors are on `device`; tokens are raw encoder tokens (views, tokens, dim). A token grid is
    taken to be square unless `grid` (rows, columns) says otherwise. Point maps and confidences
    come back in float32, points (0, 0, 0) in `points` mean "unknown". With `graphs` a CUDA device
    replays recorded kernels per shape of input; elsewhere it changes nothing. With `compiled` every
    block is compiled when it first meets a shape, which takes a minute or more.
    """

    def __init__(
        self,
        image_to_points: ImageToPoints,
        local_to_world: LocalToWorld,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        graphs: bool = False,
        compiled: bool = False,
    ) -> None:
        self.device = torch.device(device)
        self.dtype = dtype
        self.sizes = image_to_points.sizes
        self.image_to_points = _prepared(image_to_points, self.device, dtype)
        self.local_to_world = _prepared(local_to_world, self.device, dtype)
        if compiled:
            _compile_blocks(self.image_to_points)
            _compile_blocks(self.local_to_world)
        replay = Replayed if graphs and self.device.type == "cuda" else _as_it_is
        self._encoded = replay(self._encode)
        self._located = replay(self._locate)
        self._registered = replay(self._register)

    def encode(self, images: Tensor) -> Tensor:
        """Raw tokens (n, tokens, dim) of images (n, 3, h, w) in [-1, 1]; kept once per frame."""
        patch = self.sizes.patch_px
        if images.shape[2] % patch or images.shape[3] % patch:
            raise BackendError(
                f"images of {images.shape[3]} x {images.shape[2]} pixels: both sides must be "
                f"multiples of {patch}; use network_picture() first"
            )
        with self._running():
            parts = [self._encoded(None, part) for part in torch.split(images, ENCODE_AT_ONCE)]
            return torch.cat([tokens for (tokens,) in parts])

    def i2p(self, tokens: Tensor, ref: int, *, grid: tuple[int, int] | None = None) -> PointMap:
        """Points (views, h, w, 3) of all views in the camera frame of view `ref`."""
        grid = grid or _square(tokens)
        others = [i for i in range(len(tokens)) if i != ref]
        net = self.image_to_points
        with self._running():
            reference = net.start_views(tokens[None, ref : ref + 1], grid, reference=True)
            sources = net.start_views(tokens[None, others], grid, reference=False)
            r, s = net.decode(reference, sources, grid, want_ref=True, want_src=True)
            ref_map = net.downstream_head1(r, grid)
            src_map = net.downstream_head2(s, grid)
        order = torch.argsort(torch.tensor([ref, *others])).to(self.device)
        points, confidence = (
            torch.cat(pair, dim=1)[0, order] for pair in zip(ref_map, src_map, strict=True)
        )
        return PointMap(points, confidence)

    def i2p_sources(self, tokens: Tensor, *, grid: tuple[int, int] | None = None) -> Side:
        """What views (views, tokens, dim) give as sources of any window, or as candidates.

        It may be kept per view and joined by `join_views`; nothing is lost by that.
        """
        with self._running():
            return self.image_to_points.start_views(
                tokens[None], grid or _square(tokens), reference=False
            )

    def i2p_reference(
        self, ref_tokens: Tensor, sources: Side, *, grid: tuple[int, int] | None = None
    ) -> PointMap:
        """Points (h, w, 3) of the reference view (tokens, dim) alone, seen with `sources`."""
        grid = grid or _square(ref_tokens)
        with self._running():
            return PointMap(*self._located(grid, ref_tokens, *sources.tensors()))

    def l2w_references(self, tokens: Tensor, points: Tensor) -> Side:
        """What scene views with world points (views, h, w, 3) give as references; may be kept."""
        with self._running():
            return self.local_to_world.start_views(tokens[None], points[None], reference=True)

    def l2w_sources(self, references: Side, tokens: Tensor, points: Tensor) -> PointMap:
        """World points (views, h, w, 3) of views whose `points` are in their own camera frames."""
        with self._running():
            return PointMap(*self._registered(None, tokens, points, *references.tensors()))

    def l2w(
        self, ref_tokens: Tensor, ref_points: Tensor, src_tokens: Tensor, src_points: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Refined points of the r references, then world points and confidence of the s sources.

        Tokens are (views, tokens, dim). `ref_points` (r, h, w, 3) lie in the world, `src_points`
        (s, h, w, 3) each in its own camera's frame. Gives (r, h, w, 3), (s, h, w, 3), (s, h, w).
        Where the refined reference points are not used, `l2w_references` and `l2w_sources` give
        the same for less.
        """
        net = self.local_to_world
        with self._running():
            references = net.start_views(ref_tokens[None], ref_points[None], reference=True)
            sources = net.start_views(src_tokens[None], src_points[None], reference=False)
            grid = net.grid_of(ref_points[None])
            r, s = net.decode(references, sources, grid, want_ref=True, want_src=True)
            refined = net.downstream_head1(r, grid)
            world = net.downstream_head2(s, grid)
        return refined.points[0], world.points[0], world.confidence[0]

    def retrieval_scores(
        self,
        query_tokens: Tensor,
        candidates: Tensor | Side,
        *,
        grid: tuple[int, int] | None = None,
    ) -> Tensor:
        """(candidates,) scores in [0, 1) of how well candidates serve the queries as references.

        `query_tokens` is (queries, tokens, dim); `candidates` are tokens (candidates, tokens, dim)
        or what `i2p_sources` gave for them. Scores depend on the whole set of candidates.
        """
        grid = grid or _square(query_tokens)
        if isinstance(candidates, Tensor):
            candidates = self.i2p_sources(candidates, grid=grid)
        net = self.image_to_points
        with self._running():
            queries = net.start_views(query_tokens[:, None], grid, reference=True)
            return candidate_scores(net.token_scores(queries, candidates, grid))

    def weight_bytes(self) -> int:
        """Memory that the weights of both networks take [bytes]."""
        return sum(
            p.numel() * p.element_size()
            for net in (self.image_to_points, self.local_to_world)
            for p in net.parameters()
        )

    def _encode(self, _setting: None, images: Tensor) -> tuple[Tensor]:
        return (self.image_to_points.encode(images),)

    def _locate(self, grid: tuple[int, int], ref_tokens: Tensor, *kept: Tensor) -> PointMap:
        net = self.image_to_points
        reference = net.start_views(ref_tokens[None, None], grid, reference=True)
        r, _ = net.decode(reference, Side.of(kept), grid, want_ref=True, want_src=False)
        points, confidence = net.downstream_head1(r, grid)
        return PointMap(points[0, 0], confidence[0, 0])

    def _register(self, _setting: None, tokens: Tensor, points: Tensor, *known: Tensor) -> PointMap:
        net = self.local_to_world
        sources = net.start_views(tokens[None], points[None], reference=False)
        grid = net.grid_of(points[None])
        _, s = net.decode(Side.of(known), sources, grid, want_ref=False, want_src=True)
        world, confidence = net.downstream_head2(s, grid)
        return PointMap(world[0], confidence[0])

    @contextmanager
    def _running(self) -> Iterator[None]:
        reduced = self.dtype != torch.float32
        with (
            torch.no_grad(),
            torch.autocast(
                self.device.type,
                self.dtype if reduced else None,
                enabled=reduced,
                cache_enabled=False,  # a recorded graph must not refer to a cache that is emptied
            ),
        ):
            yield


def _prepared(net: Net, device: torch.device, dtype: torch.dtype) -> Net:
    """Move to the device; the large matrices take `dtype`, norms and heads stay in float32."""
    net.float()  # weights may come in half precision
    for name, layer in net.named_modules():
        in_float32 = name.startswith(IN_FLOAT32)
        if isinstance(layer, nn.Linear | nn.Conv2d) and not in_float32:
            layer.to(dtype)
    net.eval().requires_grad_(False)
    net.to(device)
    if device.type == "cpu":
        _lay_out_for_reading(net)
    return net


def _compile_blocks(net: nn.Module) -> None:
    """Block by block: those of a kind share one compilation, where a whole stack takes many."""
    for module in net.modules():
        if isinstance(module, EncoderBlock | MultiviewBlock):
            module.compile()


def _as_it_is(computation: Computation) -> Computation:
    return computation


def _lay_out_for_reading(net: nn.Module) -> None:
    """Store linear weights column by column, as the product reads them: 5 % less time on a CPU.

    Only in float32: without instructions for bfloat16 that product gets eight times slower.
    """
    for layer in net.modules():
        if isinstance(layer, nn.Linear) and layer.weight.dtype == torch.float32:
            layer.weight.data = layer.weight.data.t().contiguous().t()


def _square(tokens: Tensor) -> tuple[int, int]:
    edge = math.isqrt(tokens.shape[-2])
    if edge * edge != tokens.shape[-2]:
        raise BackendError(
            f"{tokens.shape[-2]} tokens do not form a square; pass grid=(rows, columns)"
        )
    return edge, edge
