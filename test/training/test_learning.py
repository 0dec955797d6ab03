# SPDX-License-Identifier: Apache-2.0
"""How the networks are taught: where they begin, what they are told, and that they learn it."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from decoding import Lesson, look
from losses import relative_error
from matching import Places, matching_loss, patch_places, seen_patches
from optimiser import Optimiser, orthogonalised
from pixels import Pixels, head_at
from plan import SIZES, Plan
from starts import begin_from, begin_gently, same_heads
from steps import (
    REFERENCES,
    encode_views,
    own_view_loss,
    predict_window,
    predict_world,
    retrieval_loss,
    window_loss,
    world_loss,
)
from trainer import Moment, Trainer
from windows import Clip, Views, film_room, film_rooms, reference_windows, world_windows

from worldsystem_slam3r.model.heads import PointHead
from worldsystem_slam3r.model.i2p import ImageToPoints
from worldsystem_slam3r.model.l2w import LocalToWorld
from worldsystem_slam3r.model.sizes import NetworkSizes

SIZE_PX = 32
SMALL = NetworkSizes(
    encoder_dim=32,
    encoder_depth=1,
    encoder_heads=2,
    decoder_dim=32,
    decoder_depth=2,
    decoder_heads=2,
)
MATCHING = Lesson(matching=0.5, pixels=Pixels(2, 1, 0))


@pytest.fixture(scope="module")
def clip() -> Clip:
    return film_room(3, 24, SIZE_PX)


@pytest.fixture(scope="module")
def views(clip) -> Views:
    return reference_windows([clip], np.random.default_rng(2), batch=2, views=4)


@pytest.fixture
def nets() -> tuple[ImageToPoints, LocalToWorld]:
    torch.manual_seed(0)
    i2p, l2w = ImageToPoints(SMALL), LocalToWorld(SMALL)
    begin_gently(i2p)
    begin_gently(l2w)
    return i2p, l2w


def test_a_head_asked_for_some_pixels_says_what_it_says_for_all():
    torch.manual_seed(0)
    head, tokens = PointHead(SMALL), torch.randn(2, 3, 6, 32)
    points, confidence = head(tokens, (2, 3))
    for step, row in ((1, 0), (2, 1), (4, 3)):
        pixels = Pixels(step, row, step - 1 - row)
        some = head_at(head, tokens, (2, 3), pixels)
        assert torch.allclose(some.points, pixels.of(points, axis=2), atol=1e-6)
        assert torch.allclose(some.confidence, pixels.of(confidence, axis=2), atol=1e-6)


def test_the_watched_decoder_decides_as_the_decoder_itself(nets, views):
    for net in nets:
        torch.manual_seed(1)
        tokens, grid = encode_views(nets[0], views)
        if isinstance(net, LocalToWorld):
            sides = (
                net.start_views(tokens[:, :2], views.points[:, :2], reference=True),
                net.start_views(tokens[:, 2:], views.own[:, 2:], reference=False),
            )
        else:
            sides = (
                net.start_views(tokens[:, :1], grid, reference=True),
                net.start_views(tokens[:, 1:], grid, reference=False),
            )
        plain = look(net, sides, grid, views)
        watched = look(net, sides, grid, views, Lesson(matching=1.0))
        assert torch.allclose(plain.points, watched.points, atol=1e-6)
        assert float(plain.missed) == 0.0
        assert float(watched.missed.detach()) > 0.0


def test_attention_on_the_right_patch_misses_nothing_and_elsewhere_much():
    """Four places in a row; the second view sees them in reverse."""
    places = torch.arange(4.0)[None, None, :, None] * torch.tensor([1.0, 0.0, 0.0])
    first = Places(places, torch.ones(1, 1, 4, dtype=torch.bool))
    second = Places(places.flip(2), first.known)
    code = 10.0 * torch.eye(4)[None, None, None].repeat(1, 1, 2, 1, 1)
    right = matching_loss(code, code.flip(3), first, second)
    wrong = matching_loss(code, code, first, second)
    assert float(right) < 1e-3
    assert float(wrong) > 10.0
    nowhere = Places(places + 9.0, first.known)
    assert float(matching_loss(code, code, first, nowhere)) == 0.0
    unknown = Places(places, ~first.known)
    assert float(matching_loss(code, code, unknown, second)) == 0.0


def test_every_patch_of_a_view_is_seen_in_itself_and_fewer_in_others(clip):
    views = world_windows([clip], np.random.default_rng(4), batch=4, views=6)
    places = patch_places(views, (2, 2))
    first, others = places.of(slice(1)), places.of(slice(1, None))
    assert torch.equal(seen_patches(first, first), first.known)
    shared = seen_patches(others, first)
    assert shared.any()
    assert not shared.all()


def test_a_patch_lies_at_the_mean_of_its_known_points(views):
    places = patch_places(views, (2, 2))
    corner, valid = views.points[0, 1, :16, 16:], views.valid[0, 1, :16, 16:]
    assert torch.allclose(places.points[0, 1, 1], corner[valid].mean(dim=0), atol=1e-5)
    nothing = Views(views.images, views.points, views.own, torch.zeros_like(views.valid))
    assert not patch_places(nothing, (2, 2)).known.any()


@pytest.mark.parametrize("shape", [(3, 8, 8), (2, 24, 8), (2, 8, 32)])
def test_an_orthogonalised_matrix_turns_and_hardly_stretches(shape):
    torch.manual_seed(0)
    stretched = torch.linalg.svdvals(orthogonalised(torch.randn(shape)))
    # the rounds leave the singular values between about 0.7 and 1.2, and small ones behind
    assert float(stretched.max()) < 1.3
    assert float(stretched.median()) > 0.6


def test_queries_keys_and_values_are_turned_each_by_itself():
    torch.manual_seed(0)
    fused = torch.nn.Parameter(torch.randn(24, 8))
    before = fused.detach().clone()
    fused.grad = torch.randn(24, 8)
    fused.grad[:8] *= 1e3
    other = torch.nn.Parameter(torch.zeros(8))
    named = [("blocks.0.attn.qkv.weight", fused), ("blocks.0.attn.qkv.bias", other)]
    Optimiser(named, rate=1e-3).step(1.0)
    steps = (fused.detach() - before).view(3, 8, 8).norm(dim=(1, 2))
    assert float(steps.max() / steps.min()) < 1.2
    assert fused.grad is None


def test_a_network_begins_with_every_point_straight_ahead_and_alike_things_attract(nets, views):
    i2p, _ = nets
    points = predict_window(i2p, views).points
    ahead = points[..., 2] / points.norm(dim=-1)
    assert float(ahead.detach().mean()) > 0.8
    attention = i2p.mv_dec_blocks2[0].cross_attn
    assert torch.equal(attention.projq.weight, attention.projk.weight)


def test_without_a_decoder_the_own_view_is_what_the_window_says_of_a_view_alone(nets, views):
    """With its branches cut off the decoder passes its tokens on."""
    i2p, _ = nets
    with torch.no_grad():
        for block in (*i2p.mv_dec_blocks1, *i2p.mv_dec_blocks2):
            for layer in (block.attn.proj, block.cross_attn.proj, block.mlp.fc2):
                layer.weight.zero_()
        same_heads(i2p)
        single = Views(*(tensor[:, [0, 0]] for tensor in vars(views).values()))
        single = Views(single.images, single.own, single.own, single.valid)
        assert float(own_view_loss(i2p, single)) == pytest.approx(
            float(window_loss(i2p, single)), rel=1e-4
        )


def test_local_to_world_begins_with_the_other_decoder_and_gives_points_back(clip):
    torch.manual_seed(0)
    sizes = replace(SMALL, encoder_dim=96, decoder_dim=96)
    i2p, l2w = ImageToPoints(sizes), LocalToWorld(sizes)
    begin_gently(i2p)
    rooms = film_rooms(range(4, 16), 14, SIZE_PX)
    known = world_windows(rooms, np.random.default_rng(3), batch=80, views=6)
    begin_from(l2w, i2p, known, REFERENCES)
    for name in ("mv_dec_blocks1.1.attn.qkv.weight", "enc_norm.weight"):
        assert torch.equal(l2w.state_dict()[name], i2p.state_dict()[name])
    unseen = world_windows([clip], np.random.default_rng(3), batch=4, views=6)
    # twelve rooms of four patches a picture do not fix the heads as well as those of a training
    for views, most in ((known, 0.25), (unseen, 0.45)):
        with torch.no_grad():
            back = predict_world(l2w, i2p, views).points[:, REFERENCES:]
        own, valid = views.own[:, REFERENCES:], views.valid[:, REFERENCES:]
        assert relative_error(back, own, valid, normalise=False) < most


def test_every_loss_is_learned_by_heart(nets, views):
    i2p, l2w = nets
    for net, loss_of in (
        (i2p, lambda: own_view_loss(i2p, views, MATCHING)),
        (i2p, lambda: window_loss(i2p, views, MATCHING)),
        (l2w, lambda: world_loss(l2w, i2p, views, MATCHING, references=2)),
        (i2p, lambda: window_loss(i2p, views, Lesson(confident=True))),
        (i2p, lambda: retrieval_loss(i2p, views)),
    ):
        optimiser = Optimiser(net.named_parameters(), 3e-3)
        losses = []
        for _ in range(20):
            loss = loss_of()
            loss.backward()
            optimiser.step(1.0)
            losses.append(float(loss.detach()))
        assert np.mean(losses[-5:]) < 0.8 * losses[0]


def test_the_pace_rises_falls_and_ends_and_confidence_comes_last():
    rng = np.random.default_rng(0)
    paces = [Moment(100, done, rng).pace for done in (0.1, 0.5, 0.75, 1.0)]
    assert paces == [1.0, 1.0, 0.5, 0.0]
    assert Moment(0, 0.0, rng).pace < 0.1
    assert not Moment(9, 0.5, rng).lesson.confident
    assert Moment(9, 0.9, rng).lesson.confident
    assert Moment(9, 0.9, rng).lesson.matching < Moment(9, 0.1, rng).lesson.matching


def test_each_part_moves_its_own_parameters_alone(clip, monkeypatch):
    monkeypatch.setitem(SIZES, "smallest", SMALL)
    trainer = Trainer(Plan(minutes=0.02, size_px=SIZE_PX, batch=2), [clip])
    before = {k: v.clone() for k, v in trainer.i2p.state_dict().items()}
    steps = trainer.run()
    assert all(steps.values())
    moved = {k for k, v in trainer.i2p.state_dict().items() if not torch.equal(v, before[k])}
    assert {"enc_blocks.0.attn.qkv.weight", "corr_score_proj.fc1.weight"} <= moved
    others = {"own_view_share": 0.0, "i2p_share": 0.0, "l2w_share": 0.0}
    plan = Plan(minutes=0.02, size_px=SIZE_PX, batch=2, retrieval_share=1.0, **others)
    trainer = Trainer(plan, [clip])
    before = {k: v.clone() for k, v in trainer.i2p.state_dict().items()}
    assert trainer.run()["retrieval"]
    moved = {k for k, v in trainer.i2p.state_dict().items() if not torch.equal(v, before[k])}
    assert moved
    assert all(name.startswith("corr_score_") for name in moved)


def test_batches_made_ahead_are_those_made_in_turn(clip):
    """As for a GPU, where threads make them; here on the processor."""

    def first_five(device: str) -> list[torch.Tensor]:
        trainer = Trainer(Plan(batch=1, size_px=SIZE_PX), [clip])
        object.__setattr__(trainer._plan, "device", device)
        fed = trainer._fed(lambda rng: world_windows([clip], rng, batch=1, views=3))
        return [views.points for views in itertools.islice(fed, 5)]

    pairs = zip(first_five("cpu"), first_five("cuda"), strict=True)
    assert all(torch.equal(in_turn, ahead) for in_turn, ahead in pairs)


def test_what_a_card_adds_up_is_kept_apart_from_the_recipe():
    plan = Plan(minutes=10.0, kept="rooms", resume="runs/first", i2p_share=0.0)
    assert plan.minutes_of["i2p"] == 0.0
    assert sum(plan.minutes_of.values()) == pytest.approx(10.0 * (1.0 - Plan().i2p_share))
    assert {"kept", "resume", "minutes", "i2p_share"}.isdisjoint(plan.recipe)
    assert plan.recipe["rooms"] == plan.rooms
