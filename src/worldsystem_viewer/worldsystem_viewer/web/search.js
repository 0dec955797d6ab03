// SPDX-License-Identifier: Apache-2.0
// The search field: asks the server, and steps through what it found.

const WAIT_MS = 150;

export class Search {
  // `ask(text)` sends the question; `onFound(ids)` gets what matches (null: nothing is looked for),
  // `onStep(id)` the match to look at.
  constructor(field, output, { ask, onFound, onStep }) {
    Object.assign(this, { field, output, ask, onFound, onStep });
    this.ids = [];
    this.at = -1;
    field.addEventListener("input", () => this.typed());
    field.addEventListener("keydown", (event) => {
      if (event.key === "Enter") this.step(event.shiftKey ? -1 : 1);
      if (event.key === "Escape") this.clear();
      event.stopPropagation();
    });
  }

  get text() {
    return this.field.value.trim();
  }

  typed() {
    clearTimeout(this.timer);
    if (!this.text) this.show([], "");
    else this.timer = setTimeout(() => this.ask(this.text), WAIT_MS);
  }

  // Objects come and go: ask again when they change.
  refresh() {
    if (this.text) this.ask(this.text);
  }

  take({ text, id, note }) {
    if (text === this.text) this.show(Array.from(id), note);
  }

  show(ids, note) {
    const same = ids.join() === this.ids.join();
    this.ids = ids;
    if (!same) this.at = -1;
    const count = this.at < 0 ? `${ids.length} found` : `${this.at + 1} of ${ids.length}`;
    this.output.textContent = this.text ? note || count : "";
    this.onFound(this.text ? ids : null);
  }

  step(by) {
    if (this.ids.length === 0) return;
    this.at = (this.at + by + this.ids.length) % this.ids.length;
    this.show(this.ids, "");
    this.onStep(this.ids[this.at]);
  }

  clear() {
    this.field.value = "";
    this.field.blur();
    this.show([], "");
  }
}
