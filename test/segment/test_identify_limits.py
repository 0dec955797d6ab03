# SPDX-License-Identifier: Apache-2.0
"""Asking a vision service: what it may not cost, and whose answer it is when objects change."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
import urllib.request
from dataclasses import replace
from types import SimpleNamespace

import pytest
from segment_scenes import ROOM_EYE, room
from vision_service import CHAT, JPEG, held, identifying, seen_often, serving

from worldsystem_core.objects import MapObjects
from worldsystem_segment.config import SegmentConfig
from worldsystem_segment.identify.asking import SIGHTINGS, Asking
from worldsystem_segment.identify.client import IdentifyError, Service, ask
from worldsystem_segment.identify.identifier import Inquiry
from worldsystem_segment.objects.track_ids import IdChanges
from worldsystem_segment.segmenter import MAX_IDENTITIES, Segmenter


def test_an_answer_cut_amid_a_character_can_be_published() -> None:
    cut = rb'{"choices": [{"message": {"content": "a \ud83d chair"}}]}'
    with serving((200, cut, 0)) as server:
        assert ask(Service(url=server.url), JPEG, "box").encode() == b"a ? chair"


def test_a_service_that_sends_a_byte_now_and_then_is_given_up_after_the_time_out() -> None:
    done = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        dripping = threading.Thread(target=_drip, args=(listener, done))
        dripping.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        start = time.monotonic()
        try:
            with pytest.raises(IdentifyError, match="timed out"):
                ask(Service(url=url, timeout_s=0.2), JPEG, "box")
            assert time.monotonic() - start < 1.0
        finally:
            done.set()
            dripping.join(5.0)


def _drip(listener: socket.socket, done: threading.Event) -> None:
    client, _ = listener.accept()
    with client, contextlib.suppress(OSError):  # the asker goes
        client.recv(65_536)
        client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        while not done.wait(0.05):
            client.sendall(b" ")


def test_a_service_on_this_machine_is_not_asked_through_a_proxy(monkeypatch) -> None:
    monkeypatch.setattr(urllib.request, "_opener", None)  # it keeps the proxies of before
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with serving((200, CHAT, 0)) as server:
        assert ask(Service(url=server.url), JPEG, "box") == "an oak chair"


def test_an_answer_that_comes_after_other_objects_were_loaded_names_none_of_them() -> None:
    with (
        held() as answer,
        serving((200, CHAT, answer)) as server,
        identifying(server, timeout_s=30.0) as (asker, wait_for),
    ):
        for number in (2, 3):
            assert asker.submit(Inquiry(number, "box", JPEG)) == ""
        _until(lambda: server.seen)
        asker.forget()
        answer.set()
        _until(lambda: not asker.refuses(3))
        assert asker.submit(Inquiry(3, "box", JPEG)) == ""
        (said,) = wait_for(1)
        assert said.id == 3
        assert (asker.answer_of(2), asker.answer_of(3)) == ("", said.answer)
        assert asker.dropped == 2
        assert len(server.seen) == 2, "what waited in the queue was not asked any more"


def _until(holds) -> None:
    deadline = time.monotonic() + 10.0
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_an_object_without_an_answer_is_asked_about_when_it_was_seen_twice_as_often(monkeypatch):
    with serving((200, CHAT, 0)) as server:
        config = SegmentConfig(identify_url=server.url, identify_by_itself=True)
        asking = Asking(config, Segmenter(), lambda identity: None)
        asked: list[int] = []

        def look(sightings: int) -> None:
            monkeypatch.setattr(asking, "ask", lambda _: (not asked.append(sightings), ""))
            thing = replace(seen_often(1), sightings=sightings)
            asking.look_at(MapObjects(stamp_ns=0, objects=(thing,)))

        try:
            for sightings in range(1, 2 * SIGHTINGS + 3):
                look(sightings)
            assert asked == [SIGHTINGS, 2 * SIGHTINGS]
            asking._identifier._answers[1] = "a chair"
            look(100 * SIGHTINGS)
            assert len(asked) == 2
        finally:
            asking.close()


def test_what_is_in_the_map_keeps_its_answer_however_many_others_came_and_went() -> None:
    segmenter, caster = Segmenter(), room().caster()
    for k in range(4):
        segmenter.feed(caster.shot(k, ROOM_EYE, (0.0, 1.5, 0.3))[0])
    number = min(thing.id for thing in segmenter.objects(0).objects)
    segmenter.identify(number, "an oak chair")
    for gone in range(10_000, 10_000 + MAX_IDENTITIES):
        segmenter.identify(gone, "something that has gone")
    said = {thing.id: thing.identity for thing in segmenter.objects(0).objects}
    assert said[number] == "an oak chair"
    assert len(segmenter._identities) == MAX_IDENTITIES


def test_an_object_whose_answer_is_of_long_ago_keeps_it_and_is_not_asked_about_again(monkeypatch):
    """Of the identifier's own answers, which are of any object, the oldest make way."""
    with serving((200, CHAT, 0)) as server:
        segmenter, said = Segmenter(), []
        asking = Asking(SegmentConfig(identify_url=server.url), segmenter, said.append)
        crop = SimpleNamespace(label="box", data=JPEG)
        monkeypatch.setattr(segmenter, "enhanced", lambda _: crop)
        try:
            segmenter.identify(1, "an oak chair")
            assert asking.kept(1) == "an oak chair"
            assert asking.ask(1)[0]
            assert [identity.answer for identity in said] == ["an oak chair"]
            assert server.seen == []
            asking._identifier._answers[2] = "a stool"
            asking.follow(IdChanges((), ((1, 2),)))
            assert segmenter.identity_of(1) == "an oak chair"
        finally:
            asking.close()


def test_a_question_that_waits_for_its_turn_as_it_is_forgotten_does_not_go_out(monkeypatch) -> None:
    """As one about a map that was reset meanwhile."""
    with serving((200, CHAT, 0)) as server, identifying(server) as (asker, _):
        waits, may_go, turn = threading.Event(), threading.Event(), asker._wait_for_turn

        def wait_long() -> bool:
            waits.set()
            return may_go.wait(20.0) and turn()

        monkeypatch.setattr(asker, "_wait_for_turn", wait_long)
        assert asker.submit(Inquiry(2, "box", JPEG)) == ""
        assert waits.wait(20.0)
        asker.forget()
        may_go.set()
        _until(lambda: not asker.refuses(2))
        assert server.seen == []
        assert len(asker._sent_s) == 0, "it costs no request of this minute"
