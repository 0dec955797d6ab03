# SPDX-License-Identifier: Apache-2.0
"""The page's protocol: a round trip loses nothing, damage is refused."""

import dataclasses
from dataclasses import fields
from typing import get_type_hints

import msgpack
import numpy as np
import pytest

from worldsystem_core.errors import ProtocolError
from worldsystem_viewer import protocol, protocol_text
from worldsystem_viewer.page_files import WEB

RNG = np.random.default_rng(0)


def example(message_type: type, n: int) -> protocol.Message:
    """A message with arbitrary content; each named axis of an array has length `n`."""
    plain = {"int": 2**53 + 1, "float": 0.25, "str": "été", "bool": True, "list[str]": ["a", "b"]}
    hints, dtypes = get_type_hints(message_type), protocol.array_fields(message_type)
    values = {}
    for item in fields(message_type):
        if item.name in dtypes:
            axes = hints[item.name].dim_str.split()
            shape = [int(axis) if axis.isdigit() else n for axis in axes]
            values[item.name] = (RNG.random(shape) * 200).astype(dtypes[item.name])
        else:
            values[item.name] = plain.get(item.type, {"fps": 29.5, "up": [0, 0, 1]})
    return message_type(**values)


@pytest.mark.parametrize("kind", sorted(protocol.KINDS))
@pytest.mark.parametrize("n", [0, 1, 5])
def test_a_message_comes_back_as_it_was(kind, n):
    sent = example(protocol.KINDS[kind], n)
    got = protocol.decode(protocol.encode(sent))
    assert type(got) is type(sent)
    for item in fields(sent):
        a, b = getattr(sent, item.name), getattr(got, item.name)
        if isinstance(a, np.ndarray):
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(a, b)
        else:
            assert a == b


def test_arrays_start_at_multiples_of_eight_bytes():
    """A typed array in the browser cannot view numbers that are not aligned."""
    data = protocol.encode(example(protocol.MeshUpdate, 5))
    size = int.from_bytes(data[4:8], "little")
    _, places = msgpack.unpackb(data[8 : 8 + size])
    assert all(offset % 8 == 0 for offset, *_ in places.values())


def test_an_array_of_another_type_is_refused():
    message = example(protocol.PathUpdate, 1)
    object.__setattr__(message, "positions", np.zeros((1, 3)))
    with pytest.raises(ProtocolError, match=r"PathUpdate\.positions is float64, not float32"):
        protocol.encode(message)


def _with_header(data: bytes, header: object) -> bytes:
    """The message with another header before its arrays."""
    size = int.from_bytes(data[4:8], "little")
    body = data[8 + size + -(8 + size) % 8 :]
    packed = msgpack.packb(header)
    head = data[:4] + len(packed).to_bytes(4, "little") + packed
    return head + bytes(-len(head) % 8) + body


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[:20],
        lambda data: data[:-8],
        lambda data: b"XX" + data[2:],
        lambda data: data[:2] + bytes([99]) + data[3:],
        lambda data: data[:3] + bytes([200]) + data[4:],
        lambda data: data[:8] + bytes(len(data) - 8),
        lambda data: _with_header(data, [{"start": 0}, 7]),
        lambda data: _with_header(data, [{"start": 0}, {}]),
        lambda data: _with_header(data, [7, {"positions": [0, 40, 3]}]),
        lambda data: _with_header(data, [{"start": 0}, {"positions": [0, 2**63, 2**63]}]),
        lambda data: _with_header(data, [{"start": 0}, {"positions": [-8, 40, 3]}]),
        lambda data: _with_header(data, [{"start": 0}, {"positions": [0, -1, 3]}]),
        lambda data: _with_header(data, [{"start": 0, "positions": 7}, {}]),
    ],
)
def test_a_damaged_message_is_refused(damage):
    data = protocol.encode(example(protocol.PathUpdate, 40))
    with pytest.raises(ProtocolError):
        protocol.decode(damage(data))


def test_what_is_made_from_the_definition_is_fresh():
    assert protocol_text.SCRIPT == WEB / "protocol.js"
    assert protocol_text.main(["--check"]) == 0, "run `python -m worldsystem_viewer.protocol_text`"


def test_the_docs_name_every_field_and_every_wish():
    page = protocol_text.docs()
    for message_type in protocol.KINDS.values():
        for item in dataclasses.fields(message_type):
            assert f"| `{item.name}` |" in page
    assert all(f"| `{name}` |" in page for name in protocol.WISHES)
