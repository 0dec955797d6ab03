# SPDX-License-Identifier: Apache-2.0
"""Which topics are meant."""

from __future__ import annotations

import re

_NAME = re.compile(r"/[\w/]+")


class Selection:
    """Topics told by words with spaces between them; raises `re.error` for a wrong expression.

    A word that is a topic's full name, as `/slam`, means that topic and all below it; any other
    word is a regular expression that is searched for in names.
    """

    def __init__(self, words: str) -> None:
        self._patterns = [re.compile(_pattern(word)) for word in words.split()]

    def __bool__(self) -> bool:
        return bool(self._patterns)

    def __contains__(self, topic: str) -> bool:
        return any(pattern.search(topic) for pattern in self._patterns)


def _pattern(word: str) -> str:
    return f"^{word.rstrip('/')}(/|$)" if _NAME.fullmatch(word) else word
