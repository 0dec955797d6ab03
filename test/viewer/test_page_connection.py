# SPDX-License-Identifier: Apache-2.0
"""How long the page takes a silent line for one that is only slow."""

from __future__ import annotations

import json
import shutil
import subprocess

import pytest

from worldsystem_viewer.page_files import WEB
from worldsystem_viewer.protocol import Hello, encode

NODE = shutil.which("node")
pytestmark = pytest.mark.skipif(NODE is None, reason="node is not installed")
LOOK_S = 5  # between two looks at the line
PATIENCE, MOST_PATIENCE = 4, 32  # looks

# Runs the page's connection on a line that speaks (1) or is silent (0) before each look, and prints
# the number of looks after which it was given up.
_LINE = """
import { readFileSync } from "node:fs";
const nothing = () => {};
Object.assign(globalThis, {
  location: { search: "", protocol: "http:", host: "here" },
  sessionStorage: { getItem: () => null },
  document: { hidden: false, addEventListener: nothing },
  addEventListener: nothing,
  setInterval: nothing,
  setTimeout: nothing,
  WebSocket: class {
    send() {}
    close() {}
  },
});
const { Connection } = await import("./connection.js");
const hello = new Uint8Array(readFileSync(process.argv[2]));
const given = { onMessage: nothing, onState: nothing, onRefused: nothing };
const connection = new Connection(given);
const dead = [];
let looks = 0;
for (const speaks of JSON.parse(process.argv[3])) {
  if (!connection.connected) {
    connection.open();
    connection.take(hello.buffer.slice(0));
  }
  if (speaks) connection.take(hello.buffer.slice(0));
  connection.listen();
  looks += 1;
  if (!connection.connected) dead.push(looks);
}
console.log(JSON.stringify(dead));
"""
# Runs it on a server of another version, in a browser that keeps no data of sites.
_RENEWED = """
import { readFileSync } from "node:fs";
const nothing = () => {};
let opened = 0;
Object.assign(globalThis, {
  location: { search: "", protocol: "http:", host: "here" },
  document: { hidden: false, addEventListener: nothing },
  addEventListener: nothing,
  setInterval: nothing,
  setTimeout: (later) => later(),
  WebSocket: class {
    constructor() { opened += 1; }
    send() {}
    close() { this.onclose?.(); }
  },
});
const denied = () => { throw new Error("SecurityError"); };
for (const name of ["sessionStorage", "localStorage"]) {
  Object.defineProperty(globalThis, name, { get: denied, configurable: true });
}
const { Connection } = await import("./connection.js");
const told = [];
const given = {
  onMessage: (message) => told.push(message.kind),
  onState: (state) => told.push(state),
  onRefused: (reason) => told.push(reason),
};
const connection = new Connection(given);
const hello = new Uint8Array(readFileSync(process.argv[2]));
hello[2] += 1;
connection.take(hello.buffer.slice(0));
console.log(JSON.stringify([opened, ...told]));
"""
LONG = [0] * (MOST_PATIENCE + 1)


@pytest.fixture
def given_up(tmp_path):
    """After how many looks the page gave up lines that spoke as told."""
    shutil.copytree(WEB / "vendor", tmp_path / "vendor")
    for name in ("connection.js", "protocol.js"):
        shutil.copy(WEB / name, tmp_path / name)
    (tmp_path / "package.json").write_text('{"type": "module"}')
    (tmp_path / "line.js").write_text(_LINE)
    (tmp_path / "renewed.js").write_text(_RENEWED)
    (tmp_path / "hello").write_bytes(encode(Hello(session="s", resumed=False, mesh="raw")))

    def run(speaks: list[int], script: str = "line.js") -> list[int]:
        command = [str(NODE), script, "hello", json.dumps(speaks)]
        done = subprocess.run(
            command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


def test_a_line_that_dies_is_noticed_after_20_to_25_s(given_up):
    (dead,) = given_up([1] * 3 + [0] * (PATIENCE + 1))
    assert 20 <= LOOK_S * (dead - 3) <= 25


def test_a_line_that_dies_time_and_again_is_given_longer_each_time(given_up):
    looks = given_up(LONG * 4)
    waits = [after - before for before, after in zip([0, *looks], looks, strict=False)]
    assert waits[:4] == [PATIENCE + 1, 2 * PATIENCE + 1, 4 * PATIENCE + 1, MOST_PATIENCE + 1]


def test_after_a_lively_minute_a_death_is_noticed_as_soon_as_at_first(given_up):
    minute = [1] * (60 // LOOK_S)
    looks = given_up((minute + [0] * PATIENCE) * 5)
    assert looks == [(len(minute) + PATIENCE) * n for n in range(1, 6)]


def test_a_line_on_which_messages_take_long_is_not_lively(given_up):
    begun = [0] * (PATIENCE + 1)
    slow = [1, 0, 0] * (60 // LOOK_S)
    looks = given_up(begun + slow + LONG)
    assert looks[0] == len(begun)
    assert looks[1] > len(begun) + len(slow) + PATIENCE


def test_a_server_that_was_renewed_asks_for_the_page_to_be_loaded_again(given_up):
    """Once, and it is not tried again; also where the browser keeps no data of sites."""
    assert given_up([], "renewed.js") == [1, "connecting", "lost", "version"]


# Looks at a line on which no greeting comes, then hears that the network is back; prints how many
# lines were opened and closed after each.
_UNGREETED = """
const nothing = () => {};
const heard = {};
let [opened, closed] = [0, 0];
Object.assign(globalThis, {
  location: { search: "", protocol: "http:", host: "here" },
  sessionStorage: { getItem: () => null },
  document: { hidden: false, addEventListener: nothing },
  addEventListener: (name, act) => { heard[name] = act; },
  setInterval: nothing,
  setTimeout: (later) => later(),
  fetch: async () => ({ status: 204 }),
  WebSocket: class {
    static CONNECTING = 0;
    static OPEN = 1;
    readyState = 1;
    constructor() { opened += 1; }
    send() {}
    close() { closed += 1; }
  },
});
const { Connection } = await import("./connection.js");
const connection = new Connection({ onMessage: nothing, onState: nothing, onRefused: nothing });
const looks = JSON.parse(process.argv[3]);
for (const _ of looks.slice(1)) connection.listen();
const told = [opened, closed];
connection.listen();
told.push(opened, closed);
heard.online();
console.log(JSON.stringify([...told, opened, closed]));
"""


def test_a_line_on_which_no_greeting_comes_is_given_up_and_holds_no_place(given_up, tmp_path):
    (tmp_path / "ungreeted.js").write_text(_UNGREETED)
    assert given_up([0] * (PATIENCE + 1), "ungreeted.js") == [1, 0, 2, 1, 3, 2]


# Lines that are lost, opened before (1) or not (0), to a server that would let the page in; prints
# how often the page was told why after each.
_SHUT = """
const nothing = () => {};
const told = [];
Object.assign(globalThis, {
  location: { search: "", protocol: "https:", host: "here" },
  sessionStorage: { getItem: () => null },
  document: { hidden: false, addEventListener: nothing },
  addEventListener: nothing,
  setInterval: nothing,
  setTimeout: nothing,
  fetch: async () => ({ status: 204 }),
  WebSocket: class {
    send() {}
    close() {}
  },
});
const { Connection } = await import("./connection.js");
const onRefused = (reason) => told.push(reason);
const connection = new Connection({ onMessage: nothing, onState: nothing, onRefused });
const counts = [];
for (const opens of JSON.parse(process.argv[3])) {
  if (opens) connection.socket.onopen();
  await connection.retry();
  counts.push(told.filter((reason) => reason === "line").length);
  connection.open();
}
console.log(JSON.stringify(counts));
"""


def test_a_line_that_never_opens_to_a_page_that_may_look_is_told(given_up, tmp_path):
    """But not one that opens and is slow, nor one that is shut once, as while a server comes."""
    (tmp_path / "shut.js").write_text(_SHUT)
    assert given_up([0, 0, 0], "shut.js") == [0, 1, 2]
    assert given_up([1, 1, 0, 1, 0], "shut.js") == [0, 0, 0, 0, 0]


# Asks why it was not let in, and is answered after it was greeted (1) or given another token (0);
# prints what it says then.
_LATE = """
import { readFileSync } from "node:fs";
const nothing = () => {};
const [told, answers] = [[], []];
Object.assign(globalThis, {
  location: { search: "", protocol: "http:", host: "here" },
  sessionStorage: { getItem: () => null, setItem: nothing },
  document: { hidden: false, addEventListener: nothing },
  addEventListener: nothing,
  setInterval: nothing,
  setTimeout: nothing,
  fetch: () => new Promise((answer) => answers.push(answer)),
  WebSocket: class {
    static CONNECTING = 0;
    static OPEN = 1;
    readyState = 1;
    send() {}
    close() {}
  },
});
const { Connection } = await import("./connection.js");
const hello = new Uint8Array(readFileSync(process.argv[2]));
const onRefused = (reason) => told.push(reason);
for (const greeted of JSON.parse(process.argv[3])) {
  const connection = new Connection({ onMessage: nothing, onState: nothing, onRefused });
  const asked = connection.retry();
  connection.open();
  if (greeted) connection.take(hello.buffer.slice(0));
  else connection.useToken("another");
  answers.pop()({ status: 401 });
  await asked;
}
console.log(JSON.stringify(told));
"""


def test_why_a_page_was_not_let_in_is_not_told_once_it_was_or_asks_anew(given_up, tmp_path):
    (tmp_path / "late.js").write_text(_LATE)
    assert given_up([0, 1], "late.js") == []
