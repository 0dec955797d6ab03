# SPDX-License-Identifier: Apache-2.0
"""The page's slider without a browser: where it plays on from, and whose time it shows."""

from __future__ import annotations

import pytest
from page_modules import needs_node, run_beside

from worldsystem_viewer.page_files import WEB

pytestmark = needs_node

# A page that looked back at 2 s of 9, and after so many ms is told of a past from 40 to 60 s,
# looked at where given; prints where it is then, and what it seeks half a second after it plays on.
_BEGUN_ANEW = """
let now_ms = 0;
let tick = null;
const clock = { now: () => now_ms };
Object.defineProperty(globalThis, "performance", { value: clock, configurable: true });
globalThis.setInterval = (act) => { tick = act; return 1; };
globalThis.clearInterval = () => {};
globalThis.setTimeout = () => null;
const { Timeline } = await import("./timeline.js");
const part = () => ({ addEventListener() {}, setAttribute() {}, querySelector: part });
const sought = [];
const parts = { slider: part(), clock: part(), live: part(), play: part() };
const timeline = new Timeline(part(), parts, { seek: (ns) => sought.push(ns), onPast() {} });
const { after_ms, at_ns } = JSON.parse(process.argv[2]);
timeline.take({ first_ns: 0, last_ns: 9e9, at_ns: -1 });
timeline.look(2e9);
now_ms += after_ms;
timeline.take({ first_ns: 40e9, last_ns: 60e9, at_ns });
const at = timeline.at;
timeline.toggle();
now_ms += 500;
tick();
console.log(JSON.stringify([at, sought.at(-1)]));
"""


@pytest.mark.parametrize(
    ("after_ms", "at_ns", "at"),
    [(0, 2e9, 2e9), (6000, 40e9, 40e9)],
    ids=["a map that turned metric", "a server that was begun anew"],
)
def test_a_page_plays_on_from_the_first_moment_that_is_known(tmp_path, after_ms, at_ns, at):
    given = {"after_ms": after_ms, "at_ns": at_ns}
    assert run_beside(WEB, tmp_path, _BEGUN_ANEW, given) == [at, 40.5e9]
