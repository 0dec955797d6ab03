// SPDX-License-Identifier: Apache-2.0
// The WebSocket to the server: reconnects with back-off and says how far the page had come.

import { decode, OtherVersion, wish } from "./protocol.js";

const FIRST_WAIT_MS = 300;
const LONGEST_WAIT_MS = 8000;
const LOOK_MS = 5000;
const PATIENCE = 4; // looks; a page that is seen is told its status each second
const MOST_PATIENCE = 32;
const CALM = 12; // looks, a minute: a line on which no silence was longer than one is not thin

// Browsers that keep no data of sites throw at the mere look at a store.
export function recall(store, key) {
  try {
    return globalThis[store].getItem(key);
  } catch {
    return null;
  }
}

export function remember(store, key, value) {
  try {
    globalThis[store].setItem(key, value);
  } catch {
    // it holds until the page is left
  }
}

export class Connection {
  // `onMessage(message)` for each message, `onState("connected" | "connecting" | "lost")`,
  // `onRefused(reason)` when the server lets this page not in: 401, 403, 503, "version" or "line".
  constructor({ onMessage, onState, onRefused }) {
    Object.assign(this, { onMessage, onState, onRefused });
    this.session = "";
    this.change = 0;
    this.connected = false;
    this.trying = false; // whether a line is there or on its way
    this.bytes = 0;
    this.waitMs = FIRST_WAIT_MS;
    this.silence = 0;
    this.patience = PATIENCE;
    this.calm = 0;
    this.opened = false; // whether the line of now was
    this.shut = 0; // lines in a row that did not open, to a page that may look
    this.given = new URLSearchParams(location.search);
    this.token = this.given.get("token") ?? recall("sessionStorage", "token") ?? "";
    document.addEventListener("visibilitychange", () => {
      this.silence = 0; // a hidden page is told nothing
      this.tell({ visible: !document.hidden });
    });
    addEventListener("online", () => this.hurry());
    setInterval(() => this.listen(), LOOK_MS);
    this.open();
  }

  open() {
    clearTimeout(this.retrying);
    this.trying = true;
    this.silence = 0;
    this.opened = false;
    this.onState("connecting");
    const scheme = location.protocol === "https:" ? "wss" : "ws";
    const socket = new WebSocket(`${scheme}://${location.host}/ws${this.query()}`);
    this.socket = socket;
    socket.binaryType = "arraybuffer";
    socket.onopen = () => {
      this.opened = true;
      this.tell({ session: this.session, change: this.change, ...this.meshWish() });
      this.tell({ visible: !document.hidden });
    };
    socket.onmessage = ({ data }) => socket === this.socket && this.take(data);
    socket.onclose = () => socket === this.socket && this.retry();
  }

  query() {
    return this.token ? `?token=${encodeURIComponent(this.token)}` : "";
  }

  // How the surface is to come: `?mesh=raw` or `?mesh=code`, and `?mbps=0.5` of the line at most.
  meshWish() {
    const asked = {};
    if (this.given.has("mesh")) asked.mesh = this.given.get("mesh");
    if (this.given.has("mbps")) asked.mbps = Number(this.given.get("mbps"));
    return asked;
  }

  take(data) {
    this.bytes += data.byteLength;
    this.silence = 0;
    const message = this.read(data);
    if (!message) return;
    if (message.kind === "Hello") {
      this.connected = true;
      this.waitMs = FIRST_WAIT_MS;
      this.shut = 0;
      this.session = message.session;
      if (!message.resumed) this.change = 0;
      this.onState("connected");
    } else if (message.kind === "MeshUpdate" || message.kind === "MeshCode") {
      this.change = message.change;
    }
    this.onMessage(message);
  }

  // A server that was renewed speaks to pages that were, too: this one has to be loaded again.
  read(data) {
    try {
      return decode(data);
    } catch (error) {
      if (!(error instanceof OtherVersion)) throw error;
      this.socket.onmessage = this.socket.onclose = null;
      this.socket.close();
      this.connected = this.trying = false;
      this.onState("lost");
      this.onRefused("version");
      return null;
    }
  }

  // A line may die without a word. A long message on a thin line is silence, too: so each time the
  // page waits longer before it tries another, until the line was lively for long. One on which no
  // greeting comes is silent, too.
  listen() {
    if (!this.trying || document.hidden) return;
    this.silence += 1;
    this.calm = this.silence > 1 ? 0 : this.calm + 1;
    if (this.calm >= CALM) this.patience = PATIENCE;
    if (this.silence <= this.patience) return;
    this.patience = Math.min(2 * this.patience, MOST_PATIENCE);
    const dead = this.socket;
    dead.onmessage = dead.onclose = null;
    this.retry();
    dead.close();
  }

  // Where the server is there and lets the page not in, it says why; a lost line says nothing.
  async retry() {
    const [never, opened] = [!this.connected, this.opened];
    this.connected = this.trying = false;
    this.onState("lost");
    this.retrying = setTimeout(() => this.open(), this.waitMs * (0.75 + 0.5 * Math.random()));
    this.waitMs = Math.min(2 * this.waitMs, LONGEST_WAIT_MS);
    if (!never) return;
    const { token } = this;
    try {
      const { status } = await fetch(`/access${this.query()}`, { cache: "no-store" });
      if (this.connected || token !== this.token) return; // it was let in, or asks anew
      this.shut = status === 204 && !opened ? this.shut + 1 : 0;
      if ([401, 403, 503].includes(status)) this.onRefused(status);
      else if (this.shut > 1) this.onRefused("line"); // once may be a server that just came
    } catch {
      this.shut = 0; // nobody is there: the next try will tell
    }
  }

  useToken(token) {
    this.token = token;
    remember("sessionStorage", "token", token);
    this.hurry();
  }

  hurry() {
    if (this.connected || this.socket.readyState === WebSocket.CONNECTING) return;
    this.waitMs = FIRST_WAIT_MS;
    const ungreeted = this.socket;
    ungreeted.onmessage = ungreeted.onclose = null;
    ungreeted.close(); // else it would hold a place at the server for ever
    this.open();
  }

  tell(values) {
    if (this.socket.readyState === WebSocket.OPEN) this.socket.send(wish(values));
  }
}
