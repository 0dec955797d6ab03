# SPDX-License-Identifier: Apache-2.0
"""Definitions and hashes found as rosidl installs them."""

import pytest
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from worldsystem_core.errors import InterfaceMissing
from worldsystem_core.message_definitions import message_definition, type_hash


def test_a_definition_holds_every_inner_type_once(interfaces):
    text = message_definition("drone_msgs/msg/Flight", [interfaces.share])
    names = [line[5:] for line in text.splitlines() if line.startswith("MSG: ")]
    assert sorted(names) == ["builtin_interfaces/Time", "drone_msgs/Fix", "std_msgs/Header"]
    assert text.startswith("std_msgs/Header header\n")


def test_the_types_read_back_from_a_definition_have_the_installed_hash(interfaces):
    store = get_typestore(Stores.EMPTY)
    text = message_definition("drone_msgs/msg/Flight", [interfaces.share])
    store.register(get_types_from_msg(text, "drone_msgs/msg/Flight"))
    for name in ("drone_msgs/msg/Flight", "std_msgs/msg/Header"):
        assert store.hash_rihs01(name) == type_hash(name, [interfaces.share])


def test_the_first_folder_that_has_the_type_wins(interfaces, tmp_path):
    overlay = tmp_path / "drone_msgs" / "msg"
    overlay.mkdir(parents=True)
    (overlay / "Fix.msg").write_text("bool ok\n")
    found = message_definition("drone_msgs/msg/Fix", [tmp_path, interfaces.share])
    assert found == "bool ok\n"


def test_a_missing_type_is_named_with_the_folders_searched(interfaces):
    with pytest.raises(InterfaceMissing, match=r"drone_msgs/msg/Lost\.msg not found in .*share"):
        message_definition("drone_msgs/msg/Lost", [interfaces.share])
    with pytest.raises(InterfaceMissing, match=r"Lost\.json not found in no folder"):
        type_hash("drone_msgs/msg/Lost", [])


@pytest.mark.parametrize("name", ["Fix", "drone_msgs/srv/Fix", "drone msgs/Fix", ""])
def test_what_is_no_message_type_is_refused(interfaces, name):
    with pytest.raises(InterfaceMissing, match="is no message type"):
        message_definition(name, [interfaces.share])


@pytest.mark.parametrize("content", ["{", "{}", '{"type_hashes": []}', "[]"])
def test_a_json_without_the_hash_is_a_clear_error(tmp_path, content):
    folder = tmp_path / "pkg" / "msg"
    folder.mkdir(parents=True)
    (folder / "A.json").write_text(content)
    with pytest.raises(InterfaceMissing, match="has no type hash of pkg/msg/A"):
        type_hash("pkg/msg/A", [tmp_path])
