# SPDX-License-Identifier: Apache-2.0
"""A URL is shown without what only its owner may know, and anything else as it is."""

from __future__ import annotations

import pytest

from worldsystem_core.shown_url import without_secrets


@pytest.mark.parametrize(
    "harmless",
    [
        "",
        "sim:orbit",
        "server://0.0.0.0:5001",
        "clip.mp4",
        "runs/12:30@home.mp4",
        "file:///data/12:30@home.mp4",
        "bag:flights@home",
        "camera:/dev/video0?size=1280x720&fps=30",
        "http://[fd00::7]:80/x?q=1#part",
        "rtsp://[cam/live",
    ],
)
def test_what_holds_no_secret_is_shown_as_it_is(harmless):
    assert without_secrets(harmless) == harmless


@pytest.mark.parametrize("end", ["", "/", "?", "#", "@", "//", ":", "a/b?c#d@e:"])
@pytest.mark.parametrize("scheme", ["rtsp:", "rtsp:/", "rtsp://", "rtsp:///", "wss://", "me://"])
def test_no_letter_of_a_password_is_shown_however_it_is_made(scheme, end):
    shown = without_secrets(f"{scheme}pilot:s3k{end}ret@cam:554/live")
    assert "s3k" not in shown
    assert "ret" not in shown
    assert shown.endswith("***@cam:554/live")


@pytest.mark.parametrize("name", ["token", "X-Auth", "apiKey", "sig", "PW", "streamid", "pass"])
@pytest.mark.parametrize("before", ["?", "?q=1&", "?q=1;", "#", "?q=1#"])
def test_no_value_of_a_secret_s_name_is_shown(name, before):
    shown = without_secrets(f"https://host/x{before}{name}=s3k;r#e?t&z=2")
    assert shown == f"https://host/x{before}{name}=***&z=2"


@pytest.mark.parametrize("value", ["s3k@ret", "@s3kret", "s3k:@ret@"])
def test_a_secret_in_a_query_is_hidden_whole_though_it_holds_an_at(value):
    shown = without_secrets(f"rtsp://cam:554/live?user=me&password={value}&channel=1")
    assert shown == "rtsp://cam:554/live?user=me&password=***&channel=1"


@pytest.mark.parametrize("password", ["s3k?token=ret", "s3k&key=ret", "s3k#pw=ret", "s3k;sig=ret"])
@pytest.mark.parametrize("scheme", ["rtsp:", "rtsp://", "wss://"])
def test_a_password_that_looks_like_a_secret_of_a_query_is_hidden_whole(scheme, password):
    shown = without_secrets(f"{scheme}pilot:{password}@cam:554/live")
    assert not [part for part in ("s3k", "ret") if part in shown]
