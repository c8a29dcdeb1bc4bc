// The Runs tab: the list of everything that was run, its filters and pages. The server searches, sorts and counts.

import * as address from "./address.js";
import { what } from "./define.js";
import { Overlay } from "./overlay.js";
import { RunPanel } from "./runpanel.js";
import { breakable, duration, fixed, get, h, has, isAnswer, post, Refusal, words } from "./util.js";

const LIVE = 1500, RESTING = 6000; // milliseconds between looks
const PAGE = 25;
const FILTERS = ["state", "method", "task", "model"];
const WORDS = ["search", ...FILTERS, "sort", "up", "page"];
const COLUMNS = [
  ["method", "method", (row, tab) => [nameOf(row, tab), remarks(row)], "text"],
  ["seed", "seed", (row) => String(row.seed)],
  ["task", "task", (row) => ends(row.task), "text"],
  ["model", "model", (row) => ends(row.model), "text"],
  ["state", "state", (row) => stateOf(row), "text"],
  ["score", "score", (row) => (has(row.score) ? [fixed(row.score), h("div.rl-sub", {}, words(row.metric ?? ""))] : "–")],
  ["eff. rank", null, (row) => fixed(row.figures.effective_mean, 1), "", "", "effective_rank"],
  ["time", null, (row) => duration(row.figures.seconds), "", "", "time"],
  ["when", "created", (row) => row.created.slice(0, 16).replace("T", " "), "", "UTC, when its comparison was asked for"],
];

/** The last part of a path or an upload's name; any other name as it is. */
const ends = (name) => h("span", { title: name }, breakable(name.split("/").slice(-2).join("/")));

function nameOf(row, tab) {
  const button = h("button.rl-name", { type: "button", "data-run": row.run }, breakable(row.label));
  button.addEventListener("click", () => tab.openRun(row.run, true));
  return button;
}

function remarks(row) {
  const notes = [row.note, row.comparison_note].filter(Boolean).map((text) => text.slice(0, 120));
  return h("div.rl-sub", {}, [row.run, row.imported ? "imported" : "", ...notes].filter(Boolean).join(" · "));
}

function stateOf(row) {
  const share = row.total_steps && ["running", "stopping"].includes(row.state) ? ` ${Math.round((100 * row.step) / row.total_steps)} %` : "";
  return h("span.rl-state", { "data-state": row.state, title: row.error }, row.state + share);
}

class Runs {
  constructor(root) {
    this.root = root;
    this.find = (selector) => root.querySelector(selector);
    this.query = { sort: "created", up: "", page: "0" };
    this.take(address.read());
    this.overlay = new Overlay(this.find('[data-chart="overlay"]'), () => this.chosen());
    this.panel = new RunPanel(this.find(".rl-one"), () => this.load(true));
    this.asked = 0;
    this.listen();
  }

  /** What the address says about the list. */
  take(found) {
    for (const word of WORDS) this.query[word] = found[word] ?? { sort: "created", page: "0" }[word] ?? "";
    if (!/^\d{1,6}$/.test(this.query.page)) this.query.page = "0";
  }

  listen() {
    const form = this.find(".rl-filters");
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("input", (event) => {
      clearTimeout(this.typing);
      this.typing = setTimeout(() => this.set({ [event.target.name]: event.target.value, page: "0" }), event.target.name === "search" ? 150 : 0);
    });
    this.find(".rl-clear").addEventListener("click", () => {
      this.set({ search: "", state: "", method: "", task: "", model: "", page: "0" });
      this.fillForm();
    });
    this.find(".rl-before").addEventListener("click", () => this.set({ page: String(Number(this.query.page) - 1) }));
    this.find(".rl-jump").addEventListener("click", () => this.find(".rl-beside").scrollIntoView({ block: "start" }));
    this.find(".rl-next").addEventListener("click", () => this.set({ page: String(Number(this.query.page) + 1) }));
    document.addEventListener("ranklab-address", ({ detail }) => detail.tab === "runs" && this.follow(detail));
    document.addEventListener("visibilitychange", () => this.plan(0));
  }

  async open() {
    const found = address.read();
    this.query.search ||= this.find('[name="search"]').value; // typed before this script was there
    this.fillForm();
    this.overlay.open((found.over ?? "").split(",").filter(Boolean));
    this.jump();
    await this.load(true);
    if (found.run) this.openRun(found.run);
  }

  follow(found) {
    this.take(found);
    this.fillForm();
    this.load(true);
    this.overlay.refresh();
  }

  set(change) {
    Object.assign(this.query, change);
    const kept = { ...this.query, sort: this.query.sort === "created" ? "" : this.query.sort, page: this.query.page === "0" ? "" : this.query.page };
    address.write(kept);
    this.load();
  }

  fillForm() {
    for (const name of ["search", ...FILTERS]) {
      const input = this.find(`[name="${name}"]`);
      if (input !== document.activeElement) input.value = this.query[name];
    }
  }

  resting() {
    return document.hidden || !this.root.offsetParent;
  }

  plan(delay) {
    clearTimeout(this.timer);
    this.timer = setTimeout(async () => {
      if (this.resting()) return;
      await this.load();
      if (this.live) this.overlay.refresh();
    }, delay);
  }

  // --- the list ---

  async load(choices = false) {
    const turn = ++this.asked;
    const { page, up, ...query } = this.query;
    try {
      const found = await get("runs/list", { ...query, up: up ? 1 : 0, offset: Number(page) * PAGE, limit: PAGE, ...(choices ? { choices: 1 } : {}) });
      if (turn !== this.asked) return;
      this.say("");
      this.draw(found);
    } catch (error) {
      this.complain(error);
    }
    this.plan(this.live ? LIVE : RESTING);
  }

  draw(found) {
    if (found.choices) this.offer(found.choices);
    this.live = found.rows.some((row) => ["queued", "running", "stopping"].includes(row.state));
    this.drawDeleted(found.deleted);
    const text = JSON.stringify([found.rows, this.query.sort, this.query.up, this.overlay.runs]);
    const last = found.offset + found.rows.length;
    this.find(".rl-count").textContent = found.total ? `${found.rows.length ? found.offset + 1 : last}–${last} of ${found.total.toLocaleString("en")} runs` : "";
    this.find(".rl-before").disabled = this.query.page === "0";
    this.find(".rl-next").disabled = last >= found.total;
    if (text === this.drawn) return;
    this.drawn = text;
    this.rows = found.rows;
    const table = this.find(".rl-runs");
    const focus = table.contains(document.activeElement) ? (({ run, pick, sort }) => [run && `[data-run="${run}"]`, pick && `[data-pick="${pick}"]`, sort && `[data-sort="${sort}"]`].find(Boolean))(document.activeElement.dataset) : null;
    table.replaceChildren(this.head(), h("tbody", {}, found.rows.length ? found.rows.map((row) => this.row(row)) : this.nothing(found.total)));
    if (focus) table.querySelector(focus)?.focus();
  }

  nothing(total) {
    const filtered = ["search", ...FILTERS].some((name) => this.query[name]);
    const why = total ? "There are fewer pages now; go back to the first." : filtered ? "No run fits these filters." : "Nothing has run here yet. The first runs appear as soon as a comparison is started in the Compare tab, or an adapter is imported.";
    return h("tr", {}, h("td.text", { colspan: String(COLUMNS.length + 1), style: "white-space:normal" }, why));
  }

  head() {
    const cells = COLUMNS.map(([name, sort, , kind, help, key]) => {
      if (!sort) return h("th", { scope: "col", class: kind || null }, h("span.rl-plain", {}, name), what(key));
      const active = this.query.sort === sort;
      const arrow = active ? (this.query.up ? " ↑" : " ↓") : "";
      const button = h("button", { type: "button", title: help ? `${help}; sort` : "sort", "data-sort": sort, onclick: () => this.sort(sort) }, name + arrow);
      return h("th", { scope: "col", class: kind || null, "aria-sort": active ? (this.query.up ? "ascending" : "descending") : null }, button);
    });
    return h("thead", {}, h("tr", {}, h("td", {}, h("span.rl-sr", {}, "in the chart")), cells));
  }

  sort(column) {
    const same = this.query.sort === column;
    this.set({ sort: column, up: same ? (this.query.up ? "" : "1") : ["method", "task", "model"].includes(column) ? "1" : "", page: "0" });
  }

  row(row) {
    const box = h("input", { type: "checkbox", "aria-label": `Show ${row.label}, seed ${row.seed}, ${row.run} in the chart`, "data-pick": row.run, checked: this.overlay.runs.includes(row.run) });
    box.addEventListener("change", () => {
      if (!this.overlay.pick(row.run, box.checked)) box.checked = false;
    });
    const cells = COLUMNS.map(([, , show, kind], place) => h(place ? "td" : "th", { class: kind || null, scope: place ? null : "row" }, show(row, this)));
    return h("tr", { "aria-current": this.panel.run === row.run ? "true" : null }, h("td.rl-tick", {}, box), cells);
  }

  offer(choices) {
    for (const name of FILTERS) {
      const select = this.find(`[name="${name}"]`);
      const options = choices[name].map(([value, count]) => h("option", { value }, `${name === "task" || name === "model" ? value.split("/").slice(-2).join("/") : value} (${count.toLocaleString("en")})`));
      if (this.query[name] && !choices[name].some(([value]) => value === this.query[name])) options.push(h("option", { value: this.query[name] }, `${this.query[name]} (0)`));
      select.replaceChildren(h("option", { value: "" }, "all"), ...options);
      select.value = this.query[name];
    }
  }

  // --- one run, the chosen ones, the deleted ones ---

  async openRun(run, byHand = false) {
    address.write({ run });
    await this.panel.open(run);
    for (const row of this.root.querySelectorAll(".rl-runs tbody tr")) row.toggleAttribute("aria-current", Boolean(row.querySelector(`[data-run="${CSS.escape(run)}"]`)));
    if (byHand && window.matchMedia("(max-width: 1000px)").matches) this.find(".rl-one").scrollIntoView({ block: "start" });
  }

  chosen() {
    address.write({ over: this.overlay.runs.join(",") });
    this.jump();
    for (const box of this.root.querySelectorAll("[data-pick]")) box.checked = this.overlay.runs.includes(box.dataset.pick);
  }

  /** On a narrow window the chart is below the list. */
  jump() {
    const { length } = this.overlay.runs;
    this.find(".rl-jump").hidden = !length;
    this.find(".rl-jump").textContent = `${length} run${length === 1 ? "" : "s"} in the chart below`;
  }

  drawDeleted(deleted) {
    const list = this.find(".rl-undo");
    const known = deleted.map((entry) => entry.id).join(" ");
    if (list.dataset.known === known) return;
    list.dataset.known = known;
    list.replaceChildren(...deleted.map((entry) => {
      const button = h("button.rl-button.rl-small", { type: "button", "data-undo": entry.id }, "Undo");
      button.addEventListener("click", () => this.undo(entry.id));
      return h("li", {}, h("span", {}, `Deleted: ${entry.title} (${entry.runs} run${entry.runs === 1 ? "" : "s"}). It is removed for good in ${Math.ceil(entry.seconds)} seconds.`), button);
    }));
    const first = Math.min(...deleted.map((entry) => entry.seconds));
    clearTimeout(this.undoTimer);
    if (deleted.length) this.undoTimer = setTimeout(() => this.load(true), 1000 * first + 1500);
  }

  async undo(id) {
    try {
      await post("runs/undo", { id });
      await this.load(true);
      this.overlay.refresh();
      this.find(`[data-run^="${CSS.escape(id)}"]`)?.focus();
    } catch (error) {
      this.complain(error);
    }
  }

  say(text) {
    const element = this.find(".rl-offline");
    element.textContent = text;
    element.hidden = !text;
  }

  complain(error) {
    this.say(error instanceof Refusal ? error.message : "The server does not answer; trying again.");
    if (!isAnswer(error)) throw error;
  }
}

export function mount(element) {
  new Runs(element.querySelector(".rl")).open();
}
