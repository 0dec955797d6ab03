# SPDX-License-Identifier: Apache-2.0
"""The session descriptions: what is checked in a browser's offer, and what our answer says."""

from __future__ import annotations

import re

from worldsystem_core.errors import ProtocolError

MAX_SDP_BYTES = 64 * 1024
_MAX_MEDIA = 8
_CANDIDATE_BY_NAME = re.compile(r"a=candidate:(\S+ ){4}\S+\.local[ \t]", re.IGNORECASE)
_LEVEL = re.compile(r"(profile-level-id=[0-9a-f]{4})[0-9a-f]{2}", re.IGNORECASE)
_LEVEL_5_2 = "34"
_VP8_MAP = re.compile(r"a=rtpmap:(\d+) VP8/90000")
_START_BITRATE = "x-google-start-bitrate=3000"  # [kbit/s]; only libwebrtc knows it


class BadOffer(ProtocolError):
    """A session description that is no offer of video that could be taken."""


def checked_offer(text: str) -> str:
    """The offer without what would only make us wait; raises `BadOffer` saying what is wrong.

    Candidates named `….local` (mDNS) go, because they could only be found by multicast: the
    browser's own checks tell its address as well. So does the end of candidates, after which no
    address may be learnt that way.
    """
    lines = text.replace("\r\n", "\n").split("\n")
    if not text.startswith("v=0"):
        raise BadOffer("the body is no session description: it must begin with v=0")
    media = [line for line in lines if line.startswith("m=")]
    if len(media) > _MAX_MEDIA:
        raise BadOffer(f"the offer has {len(media)} media, more than {_MAX_MEDIA}")
    if sum(line.startswith("m=video ") for line in media) != 1:
        raise BadOffer("the offer must hold one video (m=video); audio beside it is not taken")
    kept = [
        line
        for line in lines
        if not _CANDIDATE_BY_NAME.match(line) and line.strip() != "a=end-of-candidates"
    ]
    return "\r\n".join(kept)


def completed_answer(answer: str) -> str:
    """The answer with what aiortc does not say of us.

    H.264 is taken up to level 5.2: aiortc's 3.1 ends at 720p. And browsers are to begin with a rate
    that gives a picture in full size: from their 0.3 Mbit/s they grow by 8 % a second only.
    """
    lines = []
    for line in answer.splitlines():
        if _LEVEL.search(line):
            line = _LEVEL.sub(rf"\g<1>{_LEVEL_5_2}", line) + f";{_START_BITRATE}"
        lines.append(line)
        if vp8 := _VP8_MAP.fullmatch(line):
            lines.append(f"a=fmtp:{vp8[1]} {_START_BITRATE}")
    return "\r\n".join(lines) + "\r\n"
