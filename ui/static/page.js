// The Compare tab: what is shown, the polling, the buttons. The server keeps everything; this page only reads it.

import { read as address, write } from "./address.js";
import { plotly } from "./charts.js";
import { Form } from "./form.js";
import { Points } from "./points.js";
import { Drawing } from "./shown.js";
import { copy, get, h, has, isAnswer, post, reached, read, Refusal } from "./util.js";

const LIVE = 700, RESTING = 5000; // milliseconds between polls

const named = () => (address().c ? { id: address().c } : {});

class Page {
  constructor(root) {
    this.root = root;
    this.find = (selector) => root.querySelector(selector);
    this.shown = null;
    this.drawing = new Drawing(root);
    this.form = new Form(this.find(".rl-form"), (form) => this.start(form));
    this.listen();
  }

  async open() {
    if (window.matchMedia("(max-width: 820px)").matches) this.find(".rl-formbox").open = false;
    try {
      const first = window.ranklabFirst ? await read(await reached(window.ranklabFirst)) : await get("view", named());
      window.ranklabFirst = null;
      this.take(first);
    } catch (error) {
      this.complain(error);
      this.take(await get("view").catch(() => ({ id: null })));
    }
    await this.painted();
    this.refreshRecent();
    this.plan(LIVE);
    const from = this.shown ?? this.empty;
    this.form.open(from?.form, from?.looks ?? []).catch((error) => this.complain(error));
  }

  painted() {
    return new Promise((resolve) => requestAnimationFrame(() => setTimeout(resolve, 50)));
  }

  listen() {
    const on = (selector, event, action) => this.find(selector).addEventListener(event, action);
    on(".rl-again", "click", () => this.act(() => post("again", { id: this.shown.id }), true));
    on(".rl-stop", "click", () => this.act(() => post("stop", { id: this.shown.id })));
    on(".rl-resume", "click", () => this.act(() => post("resume", { id: this.shown.id })));
    on(".rl-recent", "change", (event) => this.show(event.target.value));
    on(".rl-axis", "change", (event) => this.drawing.set({ axis: event.target.value }));
    on(".rl-measure", "change", (event) => this.drawing.set({ measure: event.target.value }));
    on(".rl-smoothing", "input", (event) => this.drawing.set({ smoothing: Number(event.target.value) }));
    on(".rl-log", "change", (event) => this.drawing.set({ log: event.target.checked }));
    on(".rl-pause", "change", (event) => this.drawing.set({ paused: event.target.checked }));
    on(".rl-reference", "change", () => this.refetchTable());
    on(".rl-copy", "click", () => copy(this.find(".rl-shown .rl-command").textContent, this.find(".rl-copy")));
    document.addEventListener("visibilitychange", () => this.resting() || this.plan(0));
    document.addEventListener("ranklab-form", ({ detail }) => this.form.fill(detail));
    document.addEventListener("ranklab-address", ({ detail }) => this.follow(detail));
    new MutationObserver(() => this.resting() || this.drawing.draw()).observe(document.body, { attributes: true, attributeFilter: ["class"] });
    plotly.then(() => this.drawing.draw());
  }

  // --- reading ---

  plan(delay) {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.poll(), delay);
  }

  /** Nobody looks at this tab now, so it asks nothing and draws nothing. */
  resting() {
    return document.hidden || !this.root.offsetParent;
  }

  /** The address has changed, or another tab was left for this one. */
  follow({ tab, c }) {
    if (tab !== "compare") return;
    if (c && this.shown && c !== this.shown.id) this.show(c);
    else if (this.shown) this.drawing.draw();
    this.plan(0);
  }

  async poll() {
    if (this.resting()) return;
    try {
      if (this.shown?.id) {
        if (!this.shown.shipped) await this.more();
      } else this.take(await get("view"));
      this.offline("");
    } catch (error) {
      this.offline(error instanceof Refusal ? error.message : "The server does not answer; trying again.");
      if (!isAnswer(error)) throw error;
    }
    this.plan(this.shown?.id && !this.shown.ended ? LIVE : RESTING);
  }

  async more() {
    const id = this.shown.id;
    const query = { id, after: this.shown.seq, reference: this.find(".rl-reference").value };
    const data = await get("view", query);
    if (this.shown.id === id && data.after === this.shown.seq) this.take(data);
  }

  async refetchTable() {
    const reference = this.find(".rl-reference").value;
    const data = await get("view", { id: this.shown.id, after: this.shown.seq, reference, table: 1 });
    Object.assign(this.shown, { table: data.table, notes: data.notes, pareto: data.pareto });
    this.drawing.drawTable();
    this.drawing.downloads();
  }

  /** An answer of the server: a whole comparison, or what came after the last answer. */
  take(data) {
    if (!data.id) {
      this.empty = data;
      this.find(".rl-meta").textContent = "Nothing has run here yet.";
      this.find(".rl-state").textContent = "empty";
      return;
    }
    const fresh = data.after === 0 && has(data.spec);
    if (fresh) {
      this.shown = { ...data, points: new Points(), trainable: new Map() };
      this.drawing.open(this.shown);
    }
    const { points, table, ...rest } = data;
    const news = fresh || Object.keys(points).length > 0;
    const changed = fresh || rest.state !== this.shown.state;
    this.shown.points.merge(points);
    Object.assign(this.shown, rest, table ? { table } : {});
    this.drawing.status();
    this.message(this.complaint || data.message);
    if (changed && !fresh) this.refreshRecent();
    if (news || changed || table) this.drawing.draw();
  }

  async show(id) {
    try {
      this.take(await get("view", { id }));
      write({ c: id });
      this.plan(LIVE);
    } catch (error) {
      this.complain(error);
    }
  }

  async refreshRecent() {
    const entries = await get("recent").catch(() => null);
    if (!entries) return;
    const select = this.find(".rl-recent");
    select.replaceChildren(...entries.map((entry) => h("option", { value: entry.id }, `${entry.title} (${entry.state})`)));
    if (this.shown) select.value = this.shown.id;
  }

  // --- acting ---

  async act(action, showsNew = false) {
    const button = this.find(".rl-again");
    button.disabled = true;
    this.complaint = "";
    try {
      const answer = await action();
      if (showsNew) await this.begin(answer.id);
      else this.plan(0);
    } catch (error) {
      this.complain(error);
    } finally {
      button.disabled = false;
    }
  }

  async start(form) {
    this.form.busy(true);
    this.form.clearErrors();
    try {
      const answer = await post("start", form);
      await this.begin(answer.id);
      this.find(".rl-shown").scrollIntoView({ block: "start" });
    } catch (error) {
      this.form.showErrors(error instanceof Refusal ? error.errors : [{ field: "", message: "The server does not answer." }]);
    } finally {
      this.form.busy(false);
    }
  }

  async begin(id) {
    await this.show(id);
    this.refreshRecent();
  }

  complain(error) {
    if (!isAnswer(error)) throw error;
    this.complaint = error instanceof Refusal ? error.message : "The server does not answer; trying again.";
    this.message(this.complaint);
  }

  message(text) {
    const element = this.find(".rl-message");
    element.textContent = text ?? "";
    element.hidden = !text;
  }

  offline(text) {
    const element = this.find(".rl-offline");
    element.textContent = text;
    element.hidden = !text;
  }
}

/** Draws the tab and keeps it up to date while it is the one that is open. */
export function mount(element) {
  new Page(element.querySelector(".rl")).open();
}
