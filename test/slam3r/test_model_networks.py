# SPDX-License-Identifier: Apache-2.0
"""Our networks against the published ones: same weights, same inputs, same numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from golden import assert_as_golden, golden_arrays, tiny_networks, tiny_sizes

from worldsystem_slam3r.model.decoder import join_views
from worldsystem_slam3r.model.i2p import ImageToPoints
from worldsystem_slam3r.model.l2w import LocalToWorld
from worldsystem_slam3r.model.preprocess import normalised
from worldsystem_slam3r.model.retrieval import best_candidates, candidate_scores

I2P_CASES = ["A224", "B64", "C48x64", "D64x48", "E2v"]
L2W_CASES = ["A224", "B64", "C64mask"]


class Case:
    """One golden case; tensors are (batch, views, ...), golden arrays (views, batch, ...)."""

    def __init__(self, network: str, name: str) -> None:
        self.name = name
        self._inputs = golden_arrays(f"{network}_inputs")
        self._outputs = golden_arrays(f"{network}_outputs")
        height, width = self.input("true_shape")
        self.grid = (int(height) // 16, int(width) // 16)

    def input(self, key: str) -> np.ndarray:
        return self._inputs[f"{self.name}/{key}"]

    def output(self, key: str) -> np.ndarray | None:
        return self._outputs.get(f"{self.name}/{key}")

    def check_side(self, key: str, ours: torch.Tensor) -> None:
        """Tokens of a side, which the golden arrays hold view by view."""
        golden = self.output(key)
        if golden is not None:
            assert_as_golden(ours.transpose(0, 1).flatten(0, 1), golden)

    def check_maps(self, views: list[int], points: torch.Tensor, confidence: torch.Tensor) -> None:
        """Point maps of the views named, every stored form of them."""
        for i, view in enumerate(views):
            golden_points, golden_confidence = self._full_maps(view)
            if golden_points is not None:
                assert_as_golden(points[:, i], golden_points)
                assert_as_golden(confidence[:, i], golden_confidence)
            strided = self.output("pts3d_all_stride4")
            if strided is not None:
                assert_as_golden(points[:, i, ::4, ::4], strided[view])
                assert_as_golden(confidence[:, i, ::4, ::4], self.output("conf_all_stride4")[view])
            mean = confidence[:, i].double().mean(dim=(1, 2))
            assert_as_golden(mean, self.output("conf_mean")[view])

    def _full_maps(self, view: int) -> tuple[np.ndarray | None, np.ndarray | None]:
        points, confidence = self.output(f"pts3d_view{view}"), self.output(f"conf_view{view}")
        if points is not None and self.grid[0] > self.grid[1]:
            # for portraits the published code gives transposed maps
            return points.swapaxes(1, 2), confidence.swapaxes(1, 2)
        return points, confidence


def i2p_tokens(case: Case) -> torch.Tensor:
    """Our encoder's tokens (batch, views, tokens, dim) of a case's pictures."""
    pictures = case.input("img_u8")
    images = normalised(pictures.reshape(-1, *pictures.shape[2:]), "cpu")
    tokens = tiny_networks().encode(images)
    return tokens.unflatten(0, pictures.shape[:2]).transpose(0, 1)


def sides_of(views: int, refs: list[int]) -> tuple[list[int], list[int]]:
    return refs, [i for i in range(views) if i not in refs]


@pytest.mark.parametrize("name", I2P_CASES)
def test_the_encoder_gives_the_golden_tokens(name: str) -> None:
    case = Case("i2p", name)
    tokens = i2p_tokens(case)
    assert_as_golden(tokens.transpose(0, 1), case.output("enc_tokens_prenorm"))
    normed = tiny_networks().image_to_points.enc_norm(tokens)
    assert_as_golden(normed.transpose(0, 1), case.output("enc_tokens"))


@pytest.mark.parametrize("name", I2P_CASES)
@torch.no_grad()
def test_image_to_points_gives_the_golden_numbers_block_by_block(name: str) -> None:
    case, net = Case("i2p", name), tiny_networks().image_to_points
    tokens, grid = i2p_tokens(case), case.grid
    refs, sources = sides_of(tokens.shape[1], [int(case.input("ref_id"))])
    tables = net.decoder_tables(grid)
    r, s = net.embed(tokens[:, refs]), net.embed(tokens[:, sources])
    for i in range(2):
        first, second = net.mv_dec_blocks1[i], net.mv_dec_blocks2[i]
        r, s = first(r, s, tables), second(s, r, tables)
        case.check_side(f"dec_block{i}_ref", r)
        case.check_side(f"dec_block{i}_src", s)
    logits = net.corr_score_proj(net.corr_score_norm(s))[..., 0]
    assert_as_golden(logits.transpose(0, 1), case.output("pseudo_conf_logit_src"))


@pytest.mark.parametrize("name", I2P_CASES)
@torch.no_grad()
def test_image_to_points_gives_the_golden_point_maps(name: str) -> None:
    case, net = Case("i2p", name), tiny_networks().image_to_points
    tokens, grid = i2p_tokens(case), case.grid
    refs, sources = sides_of(tokens.shape[1], [int(case.input("ref_id"))])
    reference = net.start_views(tokens[:, refs], grid, reference=True)
    others = net.start_views(tokens[:, sources], grid, reference=False)
    r, s = net.decode(reference, others, grid, want_ref=True, want_src=True)
    case.check_side("dec_final_ref", r)
    case.check_side("dec_final_src", s)
    case.check_maps(refs, *net.downstream_head1(r, grid))
    case.check_maps(sources, *net.downstream_head2(s, grid))


@pytest.mark.parametrize("name", L2W_CASES)
@torch.no_grad()
def test_local_to_world_gives_the_golden_numbers(name: str) -> None:
    case, net = Case("l2w", name), tiny_networks().local_to_world
    points = torch.from_numpy(case.input("pointmaps_f16").astype(np.float32)).transpose(0, 1)
    tokens, masks = l2w_tokens(case), patch_masks(case, points)
    refs, sources = sides_of(points.shape[1], case.input("ref_ids").tolist())
    added = net.pointmap_tokens(points, masks)
    assert_as_golden(added.transpose(0, 1), case.output("pointmap_tokens"))
    sides = [
        net.start_views(
            tokens[:, views],
            points[:, views],
            reference=reference,
            patch_mask=None if masks is None else masks[:, views],
        )
        for views, reference in ((refs, True), (sources, False))
    ]
    first = net.mv_dec_blocks1[0].meet(sides[0].target, sides[1].offer)
    second = net.mv_dec_blocks2[0].meet(sides[1].target, sides[0].offer)
    case.check_side("dec_block0_ref", first)
    case.check_side("dec_block0_src", second)
    r, s = net.decode(*sides, case.grid, want_ref=True, want_src=True)
    case.check_side("dec_final_ref", r)
    case.check_side("dec_final_src", s)
    case.check_maps(refs, *net.downstream_head1(r, case.grid))
    case.check_maps(sources, *net.downstream_head2(s, case.grid))


def l2w_tokens(case: Case) -> torch.Tensor:
    if case.name == "A224":
        tokens = Case("i2p", "A224").output("enc_tokens_prenorm")
    else:
        tokens = case.input("img_tokens_prenorm")
    return torch.from_numpy(tokens).transpose(0, 1)


def patch_masks(case: Case, points: torch.Tensor) -> torch.Tensor | None:
    if case.name != "C64mask":
        return None
    masks = torch.zeros(*points.shape[:2], *case.grid, dtype=torch.bool)
    for view in (0, 1):
        masks[:, view] = torch.from_numpy(case.input(f"patch_mask_view{view}"))
    return masks


@pytest.mark.parametrize("queries", [1, 2])
def test_retrieval_gives_the_golden_scores_and_choice(queries: int) -> None:
    golden, networks = golden_arrays("retrieval"), tiny_networks()
    net, grid = networks.image_to_points, (4, 4)
    tokens = networks.encode(normalised(golden["img_u8"], "cpu"))
    assert_as_golden(tokens, golden["tokens_prenorm"][:, 0])
    candidates = networks.i2p_sources(tokens[:12])
    asked = tokens[12 : 12 + queries]
    with torch.no_grad():
        query_side = net.start_views(asked[:, None], grid, reference=True)
        per_token = net.token_scores(query_side, candidates, grid)
    assert_as_golden(per_token.transpose(0, 1), golden[f"src{queries}/patch_corr_scores"])
    scores = networks.retrieval_scores(asked, candidates)
    assert_as_golden(scores, golden[f"src{queries}/score"])
    assert torch.equal(scores, candidate_scores(per_token))
    for count in (3, 5):
        assert best_candidates(scores, count) == golden[f"src{queries}/sel_top{count}"].tolist()


def test_retrieval_scores_depend_on_the_set_of_candidates() -> None:
    golden, networks = golden_arrays("retrieval"), tiny_networks()
    tokens = torch.from_numpy(golden["tokens_prenorm"][:, 0])
    few = networks.retrieval_scores(tokens[12:13], tokens[:6])
    assert_as_golden(few, golden["src1/score_with_first6_candidates_only"])
    assert not np.allclose(few, golden["src1/score"][:6], atol=1e-3)


def test_with_fewer_candidates_than_wanted_all_are_taken_in_order() -> None:
    assert best_candidates(torch.tensor([0.1, 0.9]), 5) == [0, 1]


def random_views(count: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens and points of views that nothing else depends on."""
    noise = torch.Generator().manual_seed(seed)
    tokens = torch.randn(count, 16, 64, generator=noise)
    return tokens, torch.randn(count, 64, 64, 3, generator=noise)


def test_the_reference_alone_is_the_same_as_among_all_views() -> None:
    networks = tiny_networks()
    tokens, _ = random_views(6)
    everything = networks.i2p(tokens, ref=2)
    alone = networks.i2p_reference(tokens[2], networks.i2p_sources(tokens[[0, 1, 3, 4, 5]]))
    assert_as_golden(alone.points, everything.points[2].numpy(), 1e-5)
    assert_as_golden(alone.confidence, everything.confidence[2].numpy(), 1e-5)


def test_views_kept_one_by_one_and_joined_are_the_same_as_together() -> None:
    networks = tiny_networks()
    tokens, points = random_views(7)
    together = networks.l2w(tokens[:5], points[:5], tokens[5:], points[5:])
    kept = [networks.l2w_references(tokens[i : i + 1], points[i : i + 1]) for i in range(5)]
    joined = networks.l2w_sources(join_views(kept), tokens[5:], points[5:])
    assert_as_golden(joined.points, together[1].numpy(), 1e-5)
    assert_as_golden(joined.confidence, together[2].numpy(), 1e-5)


def test_the_order_of_references_changes_nothing() -> None:
    networks = tiny_networks()
    tokens, points = random_views(7)
    order = [3, 0, 4, 1, 2]
    straight = networks.l2w_sources(
        networks.l2w_references(tokens[:5], points[:5]), tokens[5:], points[5:]
    )
    shuffled = networks.l2w_sources(
        networks.l2w_references(tokens[order], points[order]), tokens[5:], points[5:]
    )
    assert_as_golden(shuffled.points, straight.points.numpy(), 1e-5)


def test_every_weight_that_an_output_needs_gets_a_gradient() -> None:
    sizes = tiny_sizes()
    i2p, l2w = ImageToPoints(sizes), LocalToWorld(sizes)
    images = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(4))
    tokens, grid = i2p.encode(images)[None], (4, 4)
    sides = [i2p.start_views(tokens[:, :1], grid, reference=True)]
    sides.append(i2p.start_views(tokens[:, 1:], grid, reference=False))
    r, s = i2p.decode(*sides, grid, want_ref=True, want_src=True)
    local = i2p.downstream_head1(r, grid).points
    scores = i2p.token_scores(*sides, grid)
    known = l2w.start_views(tokens[:, :1], local, reference=True)
    others = i2p.downstream_head2(s, grid).points
    new = l2w.start_views(tokens[:, 1:], others, reference=False)
    _, moved = l2w.decode(known, new, grid, want_ref=False, want_src=True)
    (l2w.downstream_head2(moved, grid).points.sum() + scores.sum()).backward()
    without = {key for key, weight in i2p.named_parameters() if weight.grad is None}
    without |= {key for key, weight in l2w.named_parameters() if weight.grad is None}
    last_of_refs = f"mv_dec_blocks1.{sizes.decoder_depth - 1}."
    unused = ("patch_embed.", "void_pe_token", "downstream_head1.", last_of_refs)
    assert {key for key in without if not key.startswith(unused)} == set()


def test_pooling_in_parts_is_pooling_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    networks = tiny_networks()
    tokens, points = random_views(8)
    at_once = networks.l2w(tokens[:5], points[:5], tokens[5:], points[5:])
    monkeypatch.setattr("worldsystem_slam3r.model.decoder.PAIR_TOKENS", 2 * 3 * 16)
    in_parts = networks.l2w(tokens[:5], points[:5], tokens[5:], points[5:])
    for ours, expected in zip(in_parts, at_once, strict=True):
        assert_as_golden(ours, expected.numpy(), 1e-5)
