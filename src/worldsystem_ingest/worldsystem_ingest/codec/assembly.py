# SPDX-License-Identifier: Apache-2.0
"""Access units that can be decoded, from pictures and parameter sets that came apart."""

from __future__ import annotations

from dataclasses import dataclass

from worldsystem_ingest.codec import h264, h265, shared_syntax
from worldsystem_ingest.codec.entry import Entry
from worldsystem_ingest.sink import CORRUPT, NO_PARAMETER_SETS

_NAMES = {
    "h264": ("h264", "h.264", "avc", "avc1", "avc3", "video/avc", "video/h264"),
    "h265": ("h265", "h.265", "hevc", "hvc1", "hev1", "video/hevc", "video/h265"),
}
_CODECS = {name: codec for codec, names in _NAMES.items() for name in names}
_SYNTAXES = {"h264": h264, "h265": h265}
_KEY_TYPES = {"h264": frozenset({h264.IDR_SLICE}), "h265": h265.IRAP_TYPES}


@dataclass(frozen=True)
class Refused:
    """A picture that cannot be decoded, whatever came before it; `reason` as the sink names it."""

    reason: str


@dataclass(frozen=True)
class Assembled:
    """An access unit with the parameter sets that it needs.

    `is_key` also where an encoder that never sends a whole key frame says that pictures recover
    from here: whoever joins such a stream has no better place to begin.
    """

    data: bytes
    is_key: bool


def codec_named(name: str) -> str | None:
    """`h264` or `h265` by any of its names, also as browsers write them (`avc1.42E01E`)."""
    name = name.lower()
    return _CODECS.get(name) or _CODECS.get(name.partition(".")[0])


class Assembly:
    """Remembers parameter sets and puts them in front of the key frames that lack them."""

    def __init__(self) -> None:
        self.codec = "h264"
        self._sets: shared_syntax.ParameterSets = h264.ParameterSets()

    def use_codec(self, name: str) -> None:
        """The sender says what it encodes; names that are not known change nothing."""
        codec = codec_named(name)
        if codec and codec != self.codec:
            self.codec = codec
            self._sets = _SYNTAXES[codec].ParameterSets()

    def take_sets(self, payload: bytes) -> None:
        """Remember the parameter sets of a message that holds nothing else."""
        self._sets.take(payload)

    def take(self, data: bytes, is_key: bool) -> Assembled | Refused:
        """One picture in Annex-B form; `is_key` is what the sender says of it."""
        syntax = _SYNTAXES[self.codec]
        kinds = syntax.nal_types(data)
        if not kinds & syntax.PICTURE_TYPES:
            return Refused(CORRUPT)
        sets = frozenset(self._sets.kinds)
        if kinds & sets:
            self._sets.take(data)
        is_key = is_key or bool(kinds & _KEY_TYPES[self.codec])
        # reading slices costs as much as all else here, and only SEI tells of a recovery point
        recovers = syntax.SEI in kinds and syntax.entry_of(data) is Entry.RECOVERY
        if (is_key or recovers) and not sets <= kinds:
            if self._sets.complete:
                data = self._sets.annexb() + data
            elif is_key:
                return Refused(NO_PARAMETER_SETS)
        return Assembled(data, is_key or (recovers and self._sets.complete))
