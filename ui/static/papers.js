// The Papers tab: quoted figures and measured ones, each with its mark, chosen by paper, table, task and method.

import { read, write } from "./address.js";
import { figureTable, listOf, MEASURED, QUOTED, printedTable } from "./papers_tables.js";
import { get, h, isAnswer, Refusal } from "./util.js";

const WORDS = { paper: "paper", table: "table", task: "ptask", method: "pmethod" };
const FIRST = { paper: "capaboost", table: "2", task: "", method: "" };
const ALL = { paper: "all papers", table: "all tables", task: "all tasks", method: "all methods" };
const SHOWN = 100;
const base = (method) => (method ?? "").split(":")[0];
const count = (number, noun) => `${number.toLocaleString("en")} ${noun}${number === 1 ? "" : "s"}`;

class Papers {
  constructor(root) {
    this.root = root;
    this.find = (selector) => root.querySelector(selector);
    this.chosen = this.take(read());
    [this.view, this.shown] = ["table", SHOWN];
    this.sorted = { quoted: { column: null, up: false }, measured: { column: null, up: false } };
    this.quoted = this.measured = this.here = null;
    this.listen();
    this.load();
  }

  /** What the address says; without a word of it the first paper's first table of results. */
  take(found) {
    const said = Object.values(WORDS).some((word) => word in found);
    if (!said) return { ...FIRST };
    return Object.fromEntries(Object.entries(WORDS).map(([name, word]) => [name, found[word] === "all" ? "" : found[word] ?? ""]));
  }

  listen() {
    this.find(".pp-filters").addEventListener("submit", (event) => event.preventDefault());
    this.find(".pp-filters").addEventListener("change", (event) => this.choose({ [event.target.name]: event.target.value }));
    this.find(".pp-clear").addEventListener("click", () => this.choose({ paper: "", table: "", task: "", method: "" }));
    this.find(".pp-view").addEventListener("change", (event) => {
      this.view = event.target.value;
      this.draw();
    });
    this.find(".rl-project").addEventListener("toggle", (event) => event.target.open && this.openMeasured());
    document.addEventListener("ranklab-address", ({ detail }) => {
      if (detail.tab !== "papers" || !Object.values(WORDS).some((word) => word in detail)) return;
      this.chosen = this.take(detail);
      if (this.quoted) this.draw();
    });
  }

  async load() {
    try {
      const [quoted, measured] = await Promise.all([get("papers/quoted"), get("papers/measured")]);
      this.titles = quoted.papers;
      this.quoted = quoted.rows.map((values) => Object.fromEntries(quoted.columns.map((name, place) => [name, values[place]])));
      this.measured = measured;
      this.draw();
      this.here = await get("papers/here");
      this.draw();
    } catch (error) {
      this.complain(error);
    }
  }

  choose(change) {
    if ("paper" in change && !("table" in change)) change.table = "";
    this.chosen = { ...this.chosen, ...change };
    this.shown = SHOWN;
    const words = Object.entries(WORDS).map(([name, word]) => [word, this.chosen[name] || null]);
    if (words.every(([, value]) => !value)) words[0][1] = "all";
    write(Object.fromEntries(words));
    this.draw();
  }

  // --- choosing ---

  fits(row, without = null) {
    const { paper, table, task, method } = this.chosen;
    const is = (name, wanted, value) => without === name || !wanted || wanted === value;
    return is("paper", paper, row.paper) && is("table", table, row.table) && is("task", task, row.task) && is("method", method, base(row.method));
  }

  /** A choice keeps only values that the others leave possible, with their numbers of figures. */
  offer() {
    const valueOf = { paper: (row) => row.paper, table: (row) => row.table, task: (row) => row.task, method: (row) => base(row.method) };
    for (const [name, value] of Object.entries(valueOf)) {
      const counts = new Map();
      for (const row of this.quoted) if (value(row) && this.fits(row, name)) counts.set(value(row), (counts.get(value(row)) ?? 0) + 1);
      if (name === "task" || name === "method") for (const row of this.measured.rows) if (!counts.has(value(row))) counts.set(value(row), 0);
      const select = this.find(`[name="${name}"]`);
      if (this.chosen[name] && !counts.has(this.chosen[name])) counts.set(this.chosen[name], 0);
      const title = (key) => (name === "paper" ? this.titles[key] ?? key : name === "table" ? `Table ${key}` : key);
      const entries = [...counts].sort(([a], [b]) => a.localeCompare(b, "en", { numeric: true }));
      select.replaceChildren(h("option", { value: "" }, ALL[name]), ...entries.map(([key, number]) => h("option", { value: key }, `${title(key)} (${number || (key && this.measured.rows.some((row) => value(row) === key) ? "measured only" : 0)})`)));
      select.value = this.chosen[name];
      if (name === "table") select.disabled = !this.chosen.paper;
    }
  }

  // --- drawing ---

  draw() {
    this.offer();
    const quoted = this.quoted.filter((row) => this.fits(row));
    const { task, method } = this.chosen;
    const measured = this.measured.rows.filter((row) => (!task || row.task === task) && (!method || base(row.method) === method));
    this.find(".pp-count").textContent = `${count(quoted.length, "quoted figure")}, ${count(measured.length, "measured figure")}. Paper and table choose among quoted ones only.`;
    this.drawQuoted(quoted);
    this.drawMeasured(measured);
  }

  drawQuoted(rows) {
    const one = this.chosen.paper && this.chosen.table;
    const printed = one && this.view === "table";
    this.find(".pp-view").hidden = !one;
    this.find(".pp-about").textContent = printed
      ? `${[...new Set(rows.map((row) => row.model))].join(", ")}. Figures as printed: percent, or a correlation times 100. “Row by row” has a link for each to the settings that would measure it here.`
      : "Figures as printed: percent, or a correlation times 100. A preset fills the Compare form with what the paper prints of its settings; the figure is then measured here, on this machine and with your seeds. Where the paper's model is not on this machine, the form keeps one that is, and the figure is that model's, not the paper's.";
    const box = this.find(".pp-quoted-body");
    if (!rows.length) return box.replaceChildren(h("p.pp-empty", {}, this.whyNoQuoted()));
    const redraw = () => this.drawQuoted(rows);
    if (printed) return this.keepFocus(box, printedTable(rows, this.titles, this.sorted.quoted, redraw));
    const ordered = listOf(rows, QUOTED, this.sorted.quoted);
    const table = figureTable("Quoted figures", ordered.slice(0, this.shown), QUOTED, this.sorted.quoted, redraw, { titles: this.titles, here: this.here });
    const more = rows.length > this.shown ? h("button.rl-button.rl-small.pp-more", { type: "button", onclick: () => this.more(redraw) }, `Show ${Math.min(SHOWN, rows.length - this.shown)} more of ${rows.length.toLocaleString("en")}`) : null;
    this.keepFocus(box, table, more);
  }

  more(redraw) {
    this.shown += SHOWN;
    redraw();
    this.find(".pp-more")?.focus();
  }

  drawMeasured(rows) {
    const box = this.find(".pp-measured-body");
    const said = this.measured.missing.map((sentence) => h("p.pp-empty", {}, sentence));
    if (!rows.length) return box.replaceChildren(...said, h("p.pp-empty", {}, this.whyNoMeasured()));
    const redraw = () => this.drawMeasured(rows);
    const table = figureTable("Measured figures", listOf(rows, MEASURED, this.sorted.measured), MEASURED, this.sorted.measured, redraw, {});
    this.keepFocus(box, ...said, table);
  }

  keepFocus(box, ...parts) {
    const sort = box.contains(document.activeElement) ? document.activeElement.dataset.sort : null;
    box.replaceChildren(...parts.filter(Boolean));
    if (sort) box.querySelector(`[data-sort="${CSS.escape(sort)}"]`)?.focus();
  }

  whyNoQuoted() {
    const { paper, table, task, method } = this.chosen;
    const what = [method && ` of ${method}`, task && ` on ${task}`].filter(Boolean).join("");
    if (!paper) return `None of the four papers prints a figure${what} in the tables that are kept here.`;
    return `${this.titles[paper] ?? paper}${table ? `, Table ${table},` : ""} prints no figure${what} in the tables that are kept here.`;
  }

  whyNoMeasured() {
    const { task, method } = this.chosen;
    const tasks = [...new Set(this.measured.rows.map((row) => row.task))];
    const what = [method && `of ${method}`, task && `on ${task}`].filter(Boolean).join(" ");
    if (!tasks.length) return "Nothing was measured yet.";
    return `This project has not measured anything ${what}. It measured on ${tasks.join(", ")}; a preset of a quoted figure, or the Compare tab, measures more.`;
  }

  // --- the whole of what was measured ---

  async openMeasured() {
    const box = this.find(".rl-measured");
    if (box.childElementCount && !box.querySelector(".rl-problem")) return;
    box.replaceChildren(h("p.rl-sub", {}, "Loading."));
    try {
      const { drawMeasured } = await import("./measured.js");
      drawMeasured(box, await get("measured"));
    } catch (error) {
      box.replaceChildren(h("p.rl-problem", {}, error instanceof Refusal ? error.message : "The server does not answer; close and open this again."));
      if (!isAnswer(error)) throw error;
    }
  }

  complain(error) {
    if (!isAnswer(error)) throw error;
    const element = this.find(".rl-offline");
    element.textContent = error instanceof Refusal ? error.message : "The server does not answer; reload the page to try again.";
    element.hidden = false;
  }
}

export function mount(element) {
  new Papers(element.querySelector(".rl"));
}
