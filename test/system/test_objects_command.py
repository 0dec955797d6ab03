# SPDX-License-Identifier: Apache-2.0
"""`worldsystem objects`: what is said of words that it cannot use."""

from __future__ import annotations

import argparse

import pytest

from worldsystem.objects_command import add_objects


@pytest.mark.parametrize(
    "words", [["find", "--limit", "-1"], ["identify", "-1"], ["identify", "4294967296"]]
)
def test_amounts_that_are_none_are_refused_in_words(words, capsys):
    parser = argparse.ArgumentParser()
    add_objects(parser.add_subparsers())
    with pytest.raises(SystemExit):
        parser.parse_args(["objects", *words])
    assert "is no number from 0 to" in capsys.readouterr().err
