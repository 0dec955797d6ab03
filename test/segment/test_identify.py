# SPDX-License-Identifier: Apache-2.0
"""Asking a vision service: what goes out, and what its slow, failing and broken answers do."""

from __future__ import annotations

import base64
import json
import socket
import threading
import time
from dataclasses import replace

import pytest
from vision_service import CHAT, JPEG, held, identifying, seen_often, serving

from worldsystem_core.objects import IdentifyOutcome, MapObjects, ObjectCrop
from worldsystem_segment.config import SegmentConfig
from worldsystem_segment.identify import identifier as module
from worldsystem_segment.identify.asking import Asking
from worldsystem_segment.identify.client import IdentifyError, Service, ask
from worldsystem_segment.identify.identifier import QUEUE, Inquiry
from worldsystem_segment.objects.track_ids import IdChanges
from worldsystem_segment.segmenter import Segmenter


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch) -> None:
    monkeypatch.setattr(module, "FIRST_WAIT_S", 0.01)


def test_a_chat_service_gets_the_question_and_the_picture_and_its_text_is_trimmed() -> None:
    with serving((200, CHAT, 0)) as server:
        service = Service(url=server.url, model="eyes", key="secret")
        assert ask(service, JPEG, "brown box", "What?") == "an oak chair"
        headers, body = server.seen[0]
    sent = json.loads(body)
    text, picture = sent["messages"][0]["content"]
    assert sent["model"] == "eyes"
    assert text["text"].startswith("What?")
    assert "brown box" in text["text"]
    assert base64.b64decode(picture["image_url"]["url"].split(",")[1]) == JPEG
    assert headers["Authorization"] == "Bearer secret"


@pytest.mark.parametrize("answer", [{"label": "chair"}, "chair", b"chair"])
def test_a_form_carries_the_picture_and_takes_json_or_plain_text(answer) -> None:
    with serving((200, answer, 0)) as server:
        assert ask(Service(url=server.url, style="multipart"), JPEG, "box") == "chair"
        headers, body = server.seen[0]
    border = headers["Content-Type"].split("boundary=")[1].encode()
    assert body.count(b"--" + border) == 4
    assert JPEG in body


@pytest.mark.parametrize(
    "answer", [b"", b"{", b"<html>", [], {}, {"choices": []}, {"choices": [{"message": None}]},
               {"choices": [{"message": {"content": 5}}]}, b"{\xff\xfe\x00", b"\x1c\xc2\xa0",
               b"x" * 1_000_001],
    ids=range(11),
)  # fmt: skip
@pytest.mark.parametrize("style", ["chat", "multipart"])
def test_a_malformed_answer_is_a_problem_in_words(answer, style) -> None:
    with serving((200, answer, 0)) as server, pytest.raises(IdentifyError, match="answer"):
        ask(Service(url=server.url, style=style), JPEG, "box")


def test_lists_in_lists_in_lists_are_no_answer() -> None:
    deep = b"[" * 100_000
    with serving((200, deep, 0)) as server, pytest.raises(IdentifyError, match="not JSON"):
        ask(Service(url=server.url), JPEG, "box")


@pytest.mark.parametrize(
    "said",
    [
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nan o",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000 + b"\r\n\r\n",
    ],
    ids=["another protocol", "cut in a chunk", "endless header"],
)
def test_what_is_no_whole_http_is_a_problem_that_may_pass(said) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=_say_once, args=(listener, said))
        thread.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        with pytest.raises(IdentifyError, match="cannot be reached") as caught:
            ask(Service(url=url), JPEG, "box")
        thread.join(5.0)
    assert caught.value.again


def _say_once(listener: socket.socket, said: bytes) -> None:
    client, _ = listener.accept()
    with client:
        client.recv(65_536)
        client.sendall(said)


def test_a_service_that_sends_us_elsewhere_does_not_send_our_key_there() -> None:
    with serving((200, CHAT, 0)) as other:
        with serving((302, CHAT, 0)) as server:
            server.elsewhere = other.url
            with pytest.raises(IdentifyError):
                ask(Service(url=server.url, key="secret"), JPEG, "box")
            assert server.seen[0][0]["Authorization"] == "Bearer secret"
        assert all("Authorization" not in headers for headers, _ in other.seen)
        assert len(other.seen) == 1


def test_a_slow_service_is_given_up_after_the_time_out() -> None:
    with serving((200, CHAT, 1.0)) as server:
        start = time.monotonic()
        with pytest.raises(IdentifyError, match="timed out"):
            ask(Service(url=server.url, timeout_s=0.1), JPEG, "box")
        assert time.monotonic() - start < 0.8


def test_an_overloaded_service_is_asked_again_and_its_answer_is_kept() -> None:
    answers = (503, b"", 0), (429, b"", 0), (200, CHAT, 0)
    with serving(*answers) as server, identifying(server) as (asker, wait_for):
        assert asker.submit(Inquiry(4, "box", JPEG)) == ""
        (said,) = wait_for(1)
        assert (said.outcome, said.answer) == (IdentifyOutcome.ANSWERED, "an oak chair")
        assert said.attempts == 3
        assert asker.submit(Inquiry(4, "box", JPEG)) == ""
        assert wait_for(2)[1].outcome is IdentifyOutcome.FROM_CACHE
        assert len(server.seen) == 3
        asker.submit(Inquiry(4, "box", JPEG), again=True)
        assert wait_for(3)[2].outcome is IdentifyOutcome.ANSWERED
        assert len(server.seen) == 4


def test_a_refusal_is_final_and_failures_end_after_the_attempts() -> None:
    with serving((401, b"", 0)) as server, identifying(server) as (asker, wait_for):
        asker.submit(Inquiry(1, "box", JPEG))
        (said,) = wait_for(1)
        assert (said.outcome, said.attempts) == (IdentifyOutcome.FAILED, 1)
        assert "401" in said.problem
    with serving((500, b"", 0)) as server, identifying(server, attempts=2) as (asker, wait_for):
        asker.submit(Inquiry(1, "box", JPEG))
        assert wait_for(1)[0].attempts == 2
        assert asker.answer_of(1) == ""


def test_nobody_there_is_a_problem_that_names_the_address() -> None:
    with serving((200, CHAT, 0)) as server:
        url = server.url
    with pytest.raises(IdentifyError, match="cannot be reached"):
        ask(replace(Service(url=url), timeout_s=0.5), JPEG, "box")
    with pytest.raises(IdentifyError, match="cannot be reached"):
        ask(Service(url="no address"), JPEG, "box")


def test_the_queue_is_bounded_each_object_waits_once_and_refusals_are_told() -> None:
    with (
        held() as answer,
        serving((200, CHAT, answer)) as server,
        identifying(server, timeout_s=30.0, per_minute=600) as (asker, wait_for),
    ):
        problems = [asker.submit(Inquiry(n, "box", JPEG)) for n in range(QUEUE + 3)]
        assert sum(bool(p) for p in problems) == 3
        assert "already being asked" in asker.submit(Inquiry(QUEUE - 1, "box", JPEG))
        refused = [s for s in wait_for(4) if s.outcome is IdentifyOutcome.REFUSED]
        assert len(refused) == asker.dropped == 4
        answer.set()
        answered = [s for s in wait_for(QUEUE + 4) if s.outcome is IdentifyOutcome.ANSWERED]
        assert sorted(s.id for s in answered) == list(range(QUEUE))


def test_what_finds_no_room_is_neither_fused_nor_told_again_and_again(monkeypatch) -> None:
    fused, said = [], []

    def enhanced(object_id: int) -> ObjectCrop:
        fused.append(object_id)
        return ObjectCrop(
            id=object_id, label="box", stamp_ns=0, box_px=(0, 0, 9, 9), sharpness=1.0,
            crop_count=12, source_count=12, data=JPEG,
        )  # fmt: skip

    segmenter = Segmenter()
    monkeypatch.setattr(segmenter, "enhanced", enhanced)
    seen = MapObjects(stamp_ns=0, objects=tuple(seen_often(n) for n in range(QUEUE + 8)))
    with held() as answer, serving((200, CHAT, answer)) as server:
        config = SegmentConfig(identify_url=server.url, identify_by_itself=True)
        asking = Asking(config, segmenter, said.append)
        try:
            for _ in range(5):
                asking.look_at(seen)
            assert fused == list(range(QUEUE))
            assert said == []
        finally:
            answer.set()
            asking.close()


def test_no_more_requests_go_out_in_a_minute_than_allowed_and_closing_waits_for_none() -> None:
    with serving((200, CHAT, 0)) as server:
        with identifying(server, per_minute=2) as (asker, wait_for):
            for number in range(4):
                asker.submit(Inquiry(number, "box", JPEG))
            wait_for(2)
            time.sleep(0.2)
            assert len(server.seen) == 2
            start = time.monotonic()
        assert time.monotonic() - start < 1.0


def test_what_two_objects_that_are_one_were_identified_as_is_kept_with_their_one_id() -> None:
    segmenter = Segmenter()
    tracks = segmenter._backend.map.tracker
    for number, identity in ((2, "a fridge"), (3, "a stove"), (4, "an oven")):
        segmenter.identify(number, identity)
    tracks._joined.extend([(1, 2), (3, 4)])
    segmenter.settle()
    things = MapObjects(stamp_ns=0, objects=tuple(seen_often(n) for n in (1, 2, 3, 4)))
    known = [thing.identity for thing in segmenter._identified(things).objects]
    assert known == ["a fridge", "", "a stove", ""]
    assert segmenter.id_changes == IdChanges(joined=((1, 2), (3, 4)))
    tracks._ids.given_again.append(3)
    segmenter.settle()
    known = [thing.identity for thing in segmenter._identified(things).objects]
    assert known == ["a fridge", "", "", ""]


def test_answers_go_along_when_objects_turn_out_to_be_one_also_those_that_are_waited_for() -> None:
    with (
        held() as answer,
        serving((200, CHAT, answer)) as server,
        identifying(server) as (asker, wait_for),
    ):
        asker.submit(Inquiry(2, "box", JPEG))
        asker.follow(IdChanges(joined=((1, 2),)))
        answer.set()
        (said,) = wait_for(1)
        assert said.id == 1
        assert (asker.answer_of(1), asker.answer_of(2)) == (said.answer, "")
        asker.follow(IdChanges(joined=((0, 1),)))
        assert (asker.answer_of(0), asker.answer_of(1)) == (said.answer, "")
        asker.follow(IdChanges(given_again=(0,)))
        assert asker.answer_of(0) == ""


def test_an_object_is_not_asked_about_again_because_it_was_found_to_be_another(monkeypatch) -> None:
    with serving((200, CHAT, 0)) as server:
        config = SegmentConfig(identify_url=server.url, identify_by_itself=True)
        asking = Asking(config, Segmenter(), lambda identity: None)
        asked = []
        monkeypatch.setattr(asking, "ask", lambda number: (not asked.append(number), ""))
        try:
            for number in (2, 1):
                asking.look_at(MapObjects(stamp_ns=0, objects=(seen_often(number),)))
                asking.follow(IdChanges(joined=((1, 2),)))
            assert asked == [2]
            asking.follow(IdChanges(given_again=(1,)))
            asking.look_at(MapObjects(stamp_ns=0, objects=(seen_often(1),)))
            assert asked == [2, 1]
        finally:
            asking.close()


def test_an_answer_that_is_on_its_way_while_its_object_joins_another_is_shown_on_that() -> None:
    segmenter = Segmenter()
    config = SegmentConfig(identify_url="http://127.0.0.1:9/")
    asking = Asking(config, segmenter, lambda identity: None)
    try:
        asking._identifier._answers[2] = "a fridge"
        asking.follow(IdChanges(joined=((1, 2),)))
        segmenter.identify(2, "a fridge")  # which was on its way
        things = MapObjects(stamp_ns=0, objects=(seen_often(1),))
        assert [o.identity for o in segmenter._identified(things).objects] == ["a fridge"]
    finally:
        asking.close()


def test_what_a_service_failed_with_is_told_without_its_key_or_password() -> None:
    told = []
    with serving((503, b"", 0)) as server:
        for url in (f"{server.url}?key=hunter2", "http://me:hunter2@127.0.0.1/v1"):
            with pytest.raises(IdentifyError) as caught:
                ask(Service(url=url, timeout_s=2.0), JPEG, "box")
            told.append(str(caught.value))
    assert "answered 503" in told[0]
    assert all("***" in text and "hunter2" not in text for text in told)
