// SPDX-License-Identifier: Apache-2.0
// Gaussian splats: chunks that hang on keyframes, fetched only while they are shown.

import { decode } from "./protocol.js";
import { SplatPool } from "./splat_pool.js";

const RETRY_MS = 1500;
const EMPTY_MS = 4000; // a server that has splats tells the first of them at once
const HIDDEN_MS = 10_000; // a page that is hidden for so long fetches all when it is seen again

export class SplatsLayer {
  // `token()` is the page's token of now, empty without one.
  constructor(stage, token) {
    Object.assign(this, { stage, token });
    this.pool = new SplatPool(stage);
    this.group = this.pool.group;
    this.group.visible = false;
    this.socket = null;
    this.bytes = this.total = this.messages = 0;
    this.busyMs = []; // time of the main thread for each message
    this.queue = Promise.resolve(); // inflating takes turns, so that messages stay in order
    this.hiddenMs = HIDDEN_MS;
    this.away = false;
    this.doubted = false; // whether the line of now may be dead
    stage.beforeDraw.push(() => {
      this.follow();
      return false;
    });
    document.addEventListener("visibilitychange", () => this.see(!document.hidden));
  }

  get count() { return this.pool.count; }
  get chunks() { return this.pool.chunks.size; }

  // Connected exactly while visible: whoever shows the group gets the newest.
  follow() {
    const wanted = this.group.visible && !this.away;
    if (wanted && !this.socket) this.open();
    else if (!wanted && this.socket) this.close();
  }

  // Nothing draws on a hidden page, so what came would only pile up for the next picture.
  see(seen) {
    clearTimeout(this.leaving);
    if (seen) {
      this.away = false;
      this.follow();
      return;
    }
    this.leaving = setTimeout(() => {
      this.away = true;
      this.follow();
    }, this.hiddenMs);
  }

  open() {
    const scheme = location.protocol === "https:" ? "wss" : "ws";
    const given = new URLSearchParams(location.search);
    const query = new URLSearchParams();
    if (this.token()) query.set("token", this.token());
    if (given.has("splats")) query.set("splats", given.get("splats"));
    const socket = new WebSocket(`${scheme}://${location.host}/ws/splats?${query}`);
    this.socket = socket;
    this.fresh = true; // what is there stays until something newer comes
    this.doubted = false;
    socket.binaryType = "arraybuffer";
    socket.onmessage = ({ data }) => {
      this.bytes += data.byteLength;
      if (socket === this.socket) this.doubted = false;
      this.queue = this.queue.then(() => this.take(socket, data)).catch(console.error);
    };
    socket.onopen = () => setTimeout(() => {
      if (this.socket === socket && this.fresh) this.clear(); // there are none any more
    }, EMPTY_MS);
    socket.onclose = () => {
      if (this.socket !== socket) return;
      setTimeout(() => {
        if (this.socket !== socket) return;
        this.socket = null;
        this.follow();
      }, RETRY_MS);
    };
  }

  close() {
    const socket = this.socket;
    this.socket = null;
    socket.close();
  }

  async take(socket, data) {
    const message = decode(data);
    const words = message.deflated ? await inflated(message.words, message.count[0]) : message.words;
    if (socket !== this.socket) return;
    const begun = performance.now();
    if (this.fresh) this.pool.clear();
    this.fresh = false;
    this.apply(message, words);
    this.busyMs.push(performance.now() - begun);
    if (this.busyMs.length > 1000) this.busyMs.shift();
    this.messages += 1;
    this.total = message.total;
    this.stage.redraw();
  }

  apply({ removed, chunk, count, world_from_chunk }, words) {
    for (const gone of removed) this.pool.remove(gone);
    let at = 0;
    for (let k = 0; k < chunk.length; k += 1) {
      const matrix = world_from_chunk.subarray(16 * k, 16 * k + 16);
      if (count[k] < 0) {
        this.pool.move(chunk[k], matrix);
        continue;
      }
      const octets = words.slice(at, at + 16 * count[k]); // a view would keep the message alive
      this.pool.put(chunk[k], new Uint32Array(octets.buffer), matrix);
      at += 16 * count[k];
    }
  }

  // The server's session is another: it has to tell all again, also over a socket that stayed.
  forget() {
    this.clear();
    if (!this.socket) return;
    this.close();
    this.follow();
  }

  // The page's other line was lost: this one may have died with it, which nothing would tell.
  doubt() {
    this.doubted = true;
  }

  // The other line is back; where nothing came over this one meanwhile, another is opened.
  recover() {
    if (!this.doubted || !this.socket) return;
    this.close();
    this.follow();
  }

  clear() {
    this.pool.clear();
    this.stage.redraw();
  }
}

// Sixteen byte planes, one behind the other, back to sixteen bytes a splat.
async function inflated(data, count) {
  const stream = new Blob([data]).stream().pipeThrough(new DecompressionStream("deflate"));
  const planes = new Uint8Array(await new Response(stream).arrayBuffer());
  if (planes.length !== 16 * count) throw new Error(`${count} splats in ${planes.length} bytes`);
  const octets = new Uint8Array(16 * count);
  for (let plane = 0, from = 0; plane < 16; plane += 1) {
    for (let to = plane; to < octets.length; to += 16, from += 1) octets[to] = planes[from];
  }
  return octets;
}
