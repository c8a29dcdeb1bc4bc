// Fit a target: the form, the stream of points, the chart and the table of what was captured.

import { read as address } from "./address.js";
import { chartOf, fitChart } from "./playground_charts.js";
import { term } from "./playground_terms.js";
import { fixed, get, h, has, isAnswer, reached, Refusal, swatch, whole } from "./util.js";

const FIRST_LOOK = [
  { rank: 6, d: 1, sparsity: 0, masks: "random" },
  { rank: 8, d: 1, sparsity: 0, masks: "random" },
  { rank: 16, d: 1, sparsity: 0, masks: "random" },
  { rank: 8, d: 2, sparsity: 0.5, masks: "random" },
  { rank: 8, d: 2, sparsity: 0.2, masks: "random" },
];
const MOST_PAIRS = 12;
const HEAD = [["method"], ["captured", "captured"], ["best at this rank", "optimum"], ["parameters", "parameters"], ["rank up to", "bound"]];
const KINDS = [["flat", "flat: k equal singular values"], ["decay", "decaying: the i-th is 1/i"], ["gaussian", "Gaussian: full rank, no structure"], ["run", "ΔW of a finished full fine-tuning run"]];
const MASKS = [["random", "random"], ["2:4", "2:4"], ["1:4", "1:4"], ["same", "same"]];

export class FitTarget {
  constructor(root) {
    this.root = root;
    this.find = (selector) => root.querySelector(selector);
    this.chart = chartOf(this.find('[data-pg="fit"]'));
    this.pairs = FIRST_LOOK.map((pair) => ({ ...pair }));
    this.form();
    this.asks(address().fit);
    document.addEventListener("ranklab-address", ({ detail }) => detail.tab === "playground" && this.asks(detail.fit) && this.rows && this.start());
    new IntersectionObserver((entries, observer) => {
      if (!entries.at(-1).isIntersecting) return;
      observer.disconnect();
      this.start();
    }).observe(this.find(".pg-fit"));
    new MutationObserver(() => this.rows && this.draw()).observe(document.body, { attributes: true, attributeFilter: ["class"] });
  }

  /** Take what the address asks for: `fit=flat:16|6,1,0,random|8,2,0.5,random`, a target and r, d, s, masks of each method. */
  asks(text) {
    if (!text || text === this.taken) return false;
    this.taken = text;
    const [target, ...pairs] = text.split("|");
    const [kind, rank = "16"] = target.split(":");
    if (!KINDS.slice(0, 3).some(([name]) => name === kind) || !pairs.length) return false;
    this.pairs = pairs.slice(0, MOST_PAIRS).map((pair) => pair.split(",")).map(([r, d, s, masks]) => ({ rank: Number(r), d: Number(d), sparsity: Number(s), masks: MASKS.some(([name]) => name === masks) ? masks : "random" }));
    [this.kind.value, this.rank.value, this.rankBox.hidden, this.runBox.hidden] = [kind, rank.slice(0, 10), kind !== "flat", true];
    this.drawPairs();
    return true;
  }

  // --- the form ---

  form() {
    const options = (entries) => entries.map(([value, text]) => h("option", { value }, text));
    const labelled = (text, input, ...more) => h("div.pg-select", {}, h("label", { for: input.id }, text), input, ...more);
    this.kind = h("select", { id: "pg-target" }, options(KINDS));
    this.rank = h("input", { type: "text", id: "pg-target-rank", inputmode: "numeric", value: "16" });
    this.seed = h("input", { type: "text", id: "pg-fit-seed", inputmode: "numeric", value: "0" });
    this.run = h("select", { id: "pg-run" });
    this.site = h("select", { id: "pg-site" });
    this.runBox = h("div.pg-run", { hidden: true }, labelled("run", this.run), labelled("map", this.site), h("p.rl-sub"));
    this.rankBox = labelled("k of the flat spectrum", this.rank);
    this.equal = h("input", { type: "checkbox" });
    this.list = h("div.pg-pairs");
    this.error = h("p.rl-error", { role: "alert" });
    this.go = h("button.rl-big", { type: "submit" }, "Fit");
    this.add = h("button.rl-button.rl-small", { type: "button", onclick: () => this.addPair() }, "Add a method");
    const again = h("button.rl-button.rl-small", { type: "button", onclick: () => this.reset() }, "First look");
    this.find(".pg-fit-form").replaceChildren(
      labelled("target, 128 × 128 unless it is a run's", this.kind), this.runBox,
      h("div.pg-two", {}, this.rankBox, labelled("seed", this.seed)),
      h("label.rl-inline", {}, this.equal, " equal parameters: move r to match the first method"),
      this.list, h("div.pg-stories", {}, this.add, again), this.error, this.go,
    );
    this.kind.addEventListener("change", () => this.chosen());
    this.run.addEventListener("change", () => this.loadSites());
    this.find(".pg-fit-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.start();
    });
    this.drawPairs();
  }

  chosen() {
    this.rankBox.hidden = this.kind.value !== "flat";
    this.runBox.hidden = this.kind.value !== "run";
    if (this.kind.value === "run") this.loadRuns();
    else this.start();
  }

  async loadRuns() {
    this.site.replaceChildren();
    const note = this.runBox.querySelector("p");
    note.textContent = "Looking for finished runs.";
    try {
      const runs = await get("playground/targets");
      this.run.replaceChildren(...runs.map((entry) => h("option", { value: entry.run }, entry.title)));
      note.textContent = runs.length ? "" : "No full fine-tuning run has finished here yet, or only before the newest 200 comparisons: start one on the Compare tab with the method that trains everything.";
      if (runs.length) await this.loadSites();
    } catch (error) {
      this.complain(error);
      note.textContent = "";
    }
  }

  async loadSites() {
    const run = this.run.value, note = this.runBox.querySelector("p");
    note.textContent = "Reading the run's weights.";
    this.site.replaceChildren();
    try {
      const sites = await get("playground/sites", { run });
      if (run !== this.run.value) return;
      this.site.replaceChildren(...sites.map((entry) => h("option", { value: entry.site }, `${entry.site} (${entry.shape.join(" × ")})`)));
      note.textContent = "";
    } catch (error) {
      note.textContent = "";
      this.complain(error);
    }
  }

  reset() {
    this.pairs = FIRST_LOOK.map((pair) => ({ ...pair }));
    [this.kind.value, this.rank.value, this.seed.value, this.equal.checked] = ["flat", "16", "0", false];
    this.drawPairs();
    this.chosen();
  }

  addPair() {
    if (this.pairs.length >= MOST_PAIRS) return;
    this.pairs.push({ rank: 8, d: 4, sparsity: 0.5, masks: "random" });
    this.drawPairs();
    this.list.lastElementChild.querySelector("input").focus();
  }

  drawPairs() {
    const field = (pair, place, name, title) => {
      const input = h("input", { type: "text", id: `pg-pair-${place}-${name}`, inputmode: "decimal", value: String(pair[name]) });
      input.addEventListener("input", () => pair[name] = input.value.trim() === "" || Number.isNaN(Number(input.value)) ? input.value : Number(input.value));
      return h("div", {}, h("label", { for: input.id }, title), input);
    };
    const masks = (pair, place) => {
      const select = h("select", { id: `pg-pair-${place}-masks` }, MASKS.map(([value, text]) => h("option", { value }, text)));
      select.value = pair.masks;
      select.addEventListener("change", () => pair.masks = select.value);
      return h("div", {}, h("label", { for: select.id }, "masks"), select);
    };
    this.list.replaceChildren(...this.pairs.map((pair, place) => h("fieldset.pg-pair", { "aria-label": `Method ${place + 1}` },
      h("div.pg-pair-head", {}, `Method ${place + 1}`, h("button.rl-button.rl-small", { type: "button", "aria-label": `Remove method ${place + 1}`, disabled: this.pairs.length < 2, onclick: () => this.remove(place) }, "Remove")),
      h("div.pg-pair-fields", {}, field(pair, place, "rank", "r"), field(pair, place, "d", "d"), field(pair, place, "sparsity", "s"), masks(pair, place)))));
    this.add.disabled = this.pairs.length >= MOST_PAIRS;
  }

  remove(place) {
    this.pairs.splice(place, 1);
    this.drawPairs();
    this.list.querySelectorAll("button")[Math.min(place, this.pairs.length - 1)].focus();
  }

  // --- fitting ---

  asked() {
    const number = (text) => (text.trim() === "" ? text : Number.isNaN(Number(text)) ? text : Number(text));
    const asked = { pairs: this.pairs, seed: number(this.seed.value), equal: this.equal.checked };
    if (this.kind.value === "run") return { ...asked, run: this.run.value, site: this.site.value };
    return { ...asked, target: this.kind.value, target_rank: this.kind.value === "flat" ? number(this.rank.value) : 16 };
  }

  async start() {
    if (this.kind.value === "run" && !this.site.value) return this.error.textContent = "Choose a finished run and one of its maps first.";
    this.abort?.abort();
    const abort = this.abort = new AbortController();
    this.error.textContent = "";
    const before = performance.now();
    this.state("Starting.");
    try {
      const request = { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(this.asked()), signal: abort.signal };
      const response = await reached(fetch("ranklab/playground/fit", request));
      for await (const line of lines(response)) {
        if (abort.signal.aborted) return;
        this.take(line);
      }
      this.state(`Done in ${fixed((performance.now() - before) / 1000, 1)} s: ${this.described.steps} Adam steps for each method.`);
      this.root.dataset.fitted = String(Math.round(performance.now() - before));
    } catch (error) {
      if (error.name !== "AbortError") this.complain(error);
    }
  }

  take(line) {
    if (line.errors) throw new Refusal(line.errors);
    if (line.pairs) {
      this.described = line;
      [this.steps, this.rows] = [[], line.pairs.map((row) => ({ ...row, captured: [] }))];
      this.find(".pg-target").textContent = `${line.target}, ${line.shape.join(" × ")}; dotted: exact optimum of unmasked pairs`;
      this.state("Fitting.");
      return;
    }
    this.steps.push(line.step);
    line.captured.forEach((share, place) => this.rows[place].captured.push(share));
    this.planDrawing();
  }

  /** At most once a frame, whatever comes. */
  planDrawing() {
    if (this.planned) return;
    this.planned = requestAnimationFrame(() => {
      this.planned = null;
      this.draw();
    });
  }

  state(text) {
    this.find(".pg-fit-state").textContent = text;
  }

  complain(error) {
    if (!isAnswer(error)) throw error;
    this.error.textContent = error instanceof Refusal ? error.message : "The server does not answer; try again.";
    this.state("");
  }

  draw() {
    fitChart(this.chart, this.steps, this.rows, "The curves come when the fit has started.");
    const head = h("thead", {}, h("tr", {}, HEAD.map(([name, key]) => h("th", { scope: "col", class: key ? null : "text" }, h("span.rl-plain", {}, name), key ? term(key, name) : null))));
    const body = h("tbody", {}, this.rows.map((row) => h("tr", {},
      h("th", { scope: "row", class: "text" }, h("span.rl-cellname", {}, swatch(row.look), h("span", {}, row.label))),
      h("td", {}, bar(row)), h("td", {}, `${fixed(row.best)}${row.exact ? ", exact optimum" : ", ceiling"}`),
      h("td", {}, whole(row.parameters)), h("td", {}, whole(row.largest_rank)))));
    this.find(".pg-table").replaceChildren(head, body);
  }
}

function bar(row) {
  const share = row.captured.at(-1);
  const width = has(share) ? 100 * Math.min(1, Math.max(0, share)) : 0;
  const track = h("div.pg-track", {}, h("i"), h("b", { title: row.exact ? "exact optimum" : "ceiling" }));
  track.style.setProperty("--rl-colour", row.look.colour);
  track.firstChild.style.width = `${width}%`;
  track.lastChild.style.left = `calc(${100 * row.best}% - 1px)`;
  return h("div.pg-bar", {}, h("span", {}, has(share) ? fixed(share) : "not finite"), track);
}

/** The JSON lines of an answer as they come. */
export async function* lines(response) {
  const reader = response.body.getReader(), decoder = new TextDecoder();
  let rest = "";
  for (;;) {
    const { done, value } = await reached(reader.read());
    rest += decoder.decode(value ?? new Uint8Array(), { stream: !done });
    const parts = rest.split("\n");
    rest = parts.pop();
    for (const part of parts) if (part) yield JSON.parse(part);
    if (done) break;
  }
  if (!rest) return;
  const last = JSON.parse(rest);
  if (!response.ok) throw new Refusal([{ field: "", message: last.detail || "The server refused." }]);
  yield last;
}
