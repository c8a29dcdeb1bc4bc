// The evaluation rows on which the methods disagree: made once on demand, then searched, sorted and paged by the server.

import { percent } from "./answers.js";
import { what } from "./define.js";
import { breakable, fixed, get, h, has, isAnswer, post, Refusal, swatch } from "./util.js";

const LOOK = 700; // milliseconds between looks at a table that is made
const PAGE = 20;
const SEVERAL = "the rows where they differ most are kept";

export class Differ {
  constructor(root) {
    this.root = root;
    this.find = (selector) => root.querySelector(selector);
    this.asked = 0;
    this.find(".rl-find").addEventListener("click", () => this.begin());
    const form = this.find(".rl-filters");
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("input", (event) => {
      clearTimeout(this.typing);
      this.typing = setTimeout(() => this.set({ offset: 0 }), event.target.name === "search" ? 150 : 0);
    });
    this.find(".rl-before").addEventListener("click", () => this.set({ offset: Math.max(0, this.query.offset - PAGE) }));
    this.find(".rl-next").addEventListener("click", () => this.set({ offset: this.query.offset + PAGE }));
  }

  /** whom: the query of who is asked; about: who that is. */
  open(whom, about) {
    this.whom = whom;
    this.about = about;
    this.query = { sort: "row", up: 1, offset: 0 };
    this.find(".rl-filters").reset();
    this.root.hidden = about.runs.length < 2;
    const methods = about.runs.map((run, place) => [h("option", { value: String(place) }, run.label), h("option", { value: `${place}!` }, `only ${run.label}`)]);
    this.find("[name=who]").replaceChildren(h("option", { value: "" }, "any"), ...methods.flat());
    this.show("none");
    this.load();
  }

  set(change) {
    Object.assign(this.query, change);
    this.load();
  }

  words() {
    const { search, truth, who } = Object.fromEntries(new FormData(this.find(".rl-filters")));
    const { sort, up, offset } = this.query;
    return { ...this.whom, sort, up, offset, limit: PAGE, search: search ?? "", truth: truth ?? "", ...(who ? { right: who.replace("!", ""), alone: who.endsWith("!") ? 1 : 0 } : {}) };
  }

  async begin() {
    this.find(".rl-find").disabled = true;
    try {
      const { comparison, seed, task } = this.whom;
      await post("tryit/begin", { comparison, seed: Number(seed), task });
      await this.load();
    } catch (error) {
      this.complain(error);
    }
  }

  async load() {
    const turn = ++this.asked;
    clearTimeout(this.timer);
    if (this.root.hidden) return;
    try {
      const found = await get("tryit/table", this.words());
      if (turn === this.asked) this.draw(found);
    } catch (error) {
      if (turn === this.asked) this.complain(error);
    }
  }

  /** What is seen in a state: none, working, ready, failed. */
  show(state, text = "") {
    this.find(".rl-find").hidden = state === "working" || state === "ready";
    this.find(".rl-find").disabled = false;
    this.find(".rl-progress").hidden = state !== "working";
    this.find(".rl-found-rows").hidden = state !== "ready";
    this.find(".rl-differ-state").textContent = text;
  }

  draw(found) {
    if (found.state === "none") return this.show("none", "All methods answer the evaluation rows of the comparison, once; the rows with different answers are kept.");
    if (found.state === "failed") return this.show("failed", found.message);
    if (found.state === "working") {
      const share = found.of ? Math.round((100 * found.done) / found.of) : 0;
      this.show("working", found.of ? `${found.done.toLocaleString("en")} of ${found.of.toLocaleString("en")} answers` : "The models are being loaded.");
      this.find(".rl-progress i").style.width = `${share}%`;
      this.find(".rl-progress").setAttribute("aria-valuenow", String(share));
      this.timer = setTimeout(() => this.load(), LOOK);
      return undefined;
    }
    return this.drawRows(found);
  }

  drawRows(found) {
    this.show("ready", said(found));
    const truth = this.find("[name=truth]");
    const chosen = truth.value;
    truth.closest("label").hidden = !found.truths.length;
    truth.replaceChildren(h("option", { value: "" }, "any"), ...found.truths.map((value) => h("option", { value }, value)));
    truth.value = found.truths.includes(chosen) ? chosen : "";
    this.find("[name=who]").closest("label").hidden = found.right.includes(null);
    const table = this.find(".rl-rows-differ");
    const sorted = table.contains(document.activeElement) ? document.activeElement.dataset.sort : null;
    const body = found.rows.length ? found.rows.map((row) => this.row(row, found)) : [h("tr", { role: "row" }, h("td.text", { colspan: String(this.about.runs.length + 4), role: "cell" }, none(found)))];
    table.replaceChildren(this.head(found), h("tbody", { role: "rowgroup" }, body));
    if (sorted) table.querySelector(`[data-sort="${sorted}"]`)?.focus();
    const { offset } = this.query, last = offset + found.rows.length;
    this.find(".rl-count").textContent = found.total ? `${found.rows.length ? offset + 1 : last}–${last} of ${found.total.toLocaleString("en")} rows` : "";
    this.find(".rl-before").disabled = !offset;
    this.find(".rl-next").disabled = last >= found.total;
  }

  head(found) {
    const cell = (name, sort, kind = "text") => {
      const active = this.query.sort === sort;
      const arrow = active ? (this.query.up ? " ↑" : " ↓") : "";
      const button = h("button", { type: "button", title: "sort", "data-sort": sort, onclick: () => this.sort(sort) }, name, arrow);
      return h("th", { scope: "col", role: "columnheader", class: kind || null, "aria-sort": active ? (this.query.up ? "ascending" : "descending") : null }, button);
    };
    const methods = this.about.runs.map((run, place) => {
      const made = cell(breakable(run.label), String(place));
      const count = has(found.right[place]) ? h("div.rl-sub", {}, `${found.right[place].toLocaleString("en")} of ${found.looked.toLocaleString("en")} right`) : null;
      made.prepend(swatch(run.look));
      if (count) made.append(count);
      return made;
    });
    const apart = cell("apart", "spread", "");
    apart.append(what("apart"));
    return h("thead", { role: "rowgroup" }, h("tr", { role: "row" }, cell("row", "row", ""), h("th.text", { scope: "col", role: "columnheader" }, h("span.rl-sub", {}, "input")), cell("true answer", "truth"), methods, apart));
  }

  sort(column) {
    const same = this.query.sort === column;
    this.set({ sort: column, up: same ? 1 - this.query.up : column === "spread" ? 0 : 1, offset: 0 });
  }

  row(row, found) {
    const numbers = found.problem === "regression";
    const answers = row.answers.map((answer, place) => {
      const sure = has(row.confidence[place]) ? h("span.rl-sub", {}, ` ${percent(row.confidence[place])}`) : null;
      const right = row.right[place];
      return h("td.text", { role: "cell", "data-of": this.about.runs[place].label }, right ? h("span.rl-mark-right", {}, "✓ ", h("span.rl-sr", {}, "right: ")) : null, shown(answer), sure);
    });
    const spread = numbers ? fixed(row.spread, 2) : String(row.spread);
    const truth = h("td.text", { role: "cell", "data-of": "true answer" }, has(row.truth) ? shown(row.truth) : "–");
    return h("tr", { role: "row" }, h("th", { scope: "row", role: "rowheader" }, String(row.row)), input(row.input), truth, answers, h("td", { role: "cell", "data-of": "apart" }, spread));
  }

  complain(error) {
    this.show("failed", error instanceof Refusal ? error.message : "The server does not answer.");
    if (!isAnswer(error)) throw error;
  }
}

function said(found) {
  const rows = (count) => count.toLocaleString("en");
  const part = found.looked < found.evaluated ? `the first ${rows(found.looked)} of ${rows(found.evaluated)} evaluation rows` : `${rows(found.looked)} evaluation rows`;
  const kind = {
    regression: "Answers differ that lie half a standard deviation of the training targets or more apart; apart: by how many deviations.",
    classification: "Apart: how many methods do not give the commonest answer.",
  }[found.problem] ?? "Texts are compared without case, punctuation and articles; apart: how many methods do not give the commonest answer.";
  return `They disagree on ${rows(found.differ)} of ${part}${found.kept < found.differ ? `; ${rows(found.kept)} of them are listed, ${SEVERAL}` : ""}. ${kind}`;
}

function none(found) {
  if (found.kept) return "No row fits these filters.";
  return found.problem === "regression" ? "On no row that was looked at do their answers lie that far apart." : "They agree on every row that was looked at.";
}

function shown(answer) {
  if (typeof answer === "number") return fixed(answer);
  if (Array.isArray(answer)) return answer.map((value) => fixed(value, 2)).join(", ");
  return answer || h("span.rl-sub", {}, "none");
}

function input(entry) {
  if (entry.image) return h("td.text.rl-input.rl-image", { role: "cell" }, h("img", { src: `data:image/png;base64,${entry.image}`, alt: "the row's picture" }));
  const several = Object.keys(entry).length > 1;
  return h("td.text.rl-input", { role: "cell" }, Object.entries(entry).map(([role, text]) => h("div", {}, several ? h("span.rl-role", {}, `${role}: `) : null, text)));
}
