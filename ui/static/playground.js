// The Rank playground: sliders, what they ask the server, and what is drawn. Only the newest answer counts.

import { read as address, write } from "./address.js";
import { FitTarget } from "./playground_fit.js";
import { branchesChart, chartOf, spectrumChart } from "./playground_charts.js";
import { explain, term } from "./playground_terms.js";
import { drawTensors, drawUpdate, savers } from "./playground_pictures.js";
import { fixed, h, isAnswer, Offline, post, Refusal, whole } from "./util.js";

const DEBOUNCE = 30, PATIENCE = 450; // milliseconds: from a slider's move to the question; until draws are counted
const SIDES = [16, 32, 64, 128, 256, 512, 768];
const DEFAULTS = { d: 2, rank: 8, sparsity: 0.5, masks: "random", sides: "both", out_features: 768, in_features: 768, seed: 0 };
const SHORT = { d: "d", r: "rank", s: "sparsity", masks: "masks", sides: "sides", out: "out_features", in: "in_features", seed: "seed" };
const SLIDERS = [
  ["d", "branches d", 1, 8, 1],
  ["rank", "inner dimension r", 1, 64, 1],
  ["sparsity", "sparsity s: share of zeros in a mask", 0, 0.99, 0.01],
];
const MASKS = [["random", "random"], ["2:4", "2:4 (N:M)"], ["1:2", "1:2 (N:M)"], ["1:4", "1:4 (N:M)"], ["2:8", "2:8 (N:M)"], ["same", "same in all branches"], ["none", "none"]];
const STORIES = [
  ["The paper's setting", {}],
  ["Above the layer", { d: 8, rank: 16, out_features: 64, in_features: 64 }],
  ["Almost nothing kept", { d: 4, sparsity: 0.98, out_features: 64, in_features: 64 }],
  ["Same masks", { d: 4, masks: "same" }],
  ["Only A masked", { d: 4, sides: "A" }],
];

class Playground {
  constructor(root) {
    this.root = root;
    this.find = (selector) => root.querySelector(selector);
    this.values = { ...DEFAULTS, ...fromAddress() };
    this.number = 0;
    this.charts = Object.fromEntries(["branches", "spectrum"].map((name) => [name, chartOf(this.find(`[data-pg="${name}"]`))]));
    this.controls();
    this.find(".pg-copy").addEventListener("click", () => navigator.clipboard?.writeText(this.find(".pg-command").textContent));
    explain(root);
    savers(root);
    this.fit = new FitTarget(root);
    document.addEventListener("ranklab-address", ({ detail }) => detail.tab === "playground" && this.follow());
    new MutationObserver(() => this.draw()).observe(document.body, { attributes: true, attributeFilter: ["class"] });
    this.ask(0);
  }

  // --- controls ---

  controls() {
    const form = this.find(".pg-controls");
    this.inputs = {};
    this.outputs = {};
    const sliders = SLIDERS.map(([name, title, min, max, step]) => {
      const id = `pg-${name}`;
      const input = this.inputs[name] = h("input", { type: "range", id, min, max, step });
      const output = this.outputs[name] = h("output", { for: id });
      input.addEventListener("input", () => this.set({ [name]: Number(input.value) }));
      return h("div.pg-slider", {}, h("label", { for: id }, title), output, input);
    });
    const lengths = SIDES.map((side) => [String(side), String(side)]);
    this.notes = h("ul.pg-notes", { role: "status" });
    const seed = this.inputs.seed = h("input", { type: "text", id: "pg-seed", inputmode: "numeric", autocomplete: "off" });
    seed.addEventListener("input", () => this.set({ seed: /^\d{1,15}$/.test(seed.value.trim()) ? Number(seed.value) : seed.value }));
    form.replaceChildren(
      ...sliders,
      h("div.pg-two", {}, this.select("masks", "mask kind", MASKS), this.select("sides", "masked factor", [["both", "A and B"], ["A", "A only"], ["B", "B only"]])),
      h("div.pg-two", {}, this.select("out_features", "out (rows of ΔW)", lengths, Number), this.select("in_features", "in (columns of ΔW)", lengths, Number)),
      h("div.pg-two", {}, h("div.pg-select", {}, h("label", { for: "pg-seed" }, "seed"), seed),
        h("button.rl-button", { type: "button", onclick: () => this.set({ seed: Math.floor(Math.random() * 1e6) }) }, "Draw again")),
      this.notes,
      h("div", {}, h("h4", {}, "Try"), h("div.pg-stories", {}, STORIES.map(([title, change]) => h("button.rl-button.rl-small", { type: "button", onclick: () => this.set({ ...DEFAULTS, ...change }) }, title)))),
    );
    form.addEventListener("submit", (event) => event.preventDefault());
    this.show();
  }

  select(name, title, options, convert = String) {
    const select = this.inputs[name] = h("select", { id: `pg-${name}` }, options.map(([value, text]) => h("option", { value }, text)));
    select.addEventListener("change", () => this.set({ [name]: convert(select.value) }));
    return h("div.pg-select", {}, h("label", { for: `pg-${name}` }, title), select);
  }

  /** The inputs show the values. */
  show() {
    for (const [name, input] of Object.entries(this.inputs)) {
      const text = String(this.values[name]);
      if (input.tagName === "SELECT" && ![...input.options].some((option) => option.value === text)) input.append(h("option", { value: text }, text));
      if (input !== document.activeElement || input.type !== "text") input.value = text;
    }
    const pattern = this.values.masks.includes(":");
    this.inputs.sparsity.disabled = pattern || this.values.masks === "none";
    this.inputs.sides.disabled = this.values.masks === "none";
    this.outputs.d.textContent = this.values.d;
    this.outputs.rank.textContent = this.values.rank;
    this.outputs.sparsity.textContent = pattern ? `by ${this.values.masks}` : this.values.masks === "none" ? "0" : Number(this.values.sparsity).toFixed(2);
  }

  set(change) {
    this.values = { ...this.values, ...change };
    this.show();
    this.ask(DEBOUNCE);
  }

  follow() {
    const values = { ...DEFAULTS, ...fromAddress() };
    if (JSON.stringify(values) !== JSON.stringify(this.values)) this.set(values);
    else this.draw();
  }

  // --- asking ---

  ask(delay) {
    clearTimeout(this.timer);
    clearTimeout(this.drawsTimer);
    this.timer = setTimeout(() => this.sketch(), delay);
  }

  async sketch() {
    const number = ++this.number;
    const before = performance.now();
    this.abort?.abort();
    this.abort = new AbortController();
    try {
      const answer = await post("playground/sketch", this.values, this.abort.signal);
      if (number !== this.number) return;
      this.answer = answer;
      this.offline("");
      this.problems(answer.notes, "");
      write({ p: toAddress(this.values) });
      this.draw();
      this.root.dataset.answered = JSON.stringify({ number, milliseconds: performance.now() - before });
      this.drawsTimer = setTimeout(() => this.count(number), PATIENCE);
    } catch (error) {
      if (number === this.number && error.name !== "AbortError") this.complain(error);
    }
  }

  /** The theorem over many draws: asked once the sliders rest. */
  async count(number) {
    try {
      const draws = await post("playground/draws", this.values, this.abort.signal);
      if (number !== this.number) return;
      this.draws = { ...draws, key: this.key() };
      this.draw();
    } catch (error) {
      if (number !== this.number || error.name === "AbortError") return;
      if (!isAnswer(error)) throw error;
      this.find(".pg-share").textContent = error instanceof Refusal ? error.message : "The draws were not counted: the server does not answer.";
    }
  }

  complain(error) {
    if (error instanceof Refusal) this.problems([], error.message);
    else if (error instanceof Offline) this.offline("The server does not answer; move a slider to try again.");
    else throw error;
  }

  problems(notes, bad) {
    this.notes.replaceChildren(...notes.map((note) => h("li", {}, note)), ...(bad ? [h("li.pg-bad", {}, bad)] : []));
  }

  offline(text) {
    const element = this.find(".rl-offline");
    element.textContent = text;
    element.hidden = !text;
  }

  // --- drawing ---

  /** What the rank by d depends on: all but d. */
  key() {
    return JSON.stringify({ ...this.answer.used, d: null });
  }

  draw() {
    const { answer } = this;
    if (!answer || !this.root.offsetParent) return;
    const { rank, bound, target, side } = answer;
    const counted = this.draws && this.draws.key === this.key() ? this.draws : null;
    this.find(".pg-rank-value").textContent = `rank ${rank.numerical}`;
    this.find(".pg-rank-of").textContent = `of at most ${bound} (d·r = ${target}; the layer has room for ${side})`;
    this.find(".pg-why").textContent = answer.why;
    this.find(".pg-share").textContent = counted && counted.target === target ? shareSentence(counted) : "The theorem over draws is counted when the sliders rest.";
    this.outputs.d.textContent = answer.used.d;
    this.outputs.rank.textContent = answer.used.rank;
    this.find(".pg-command").textContent = commandLine(answer.used);
    this.figures();
    branchesChart(this.charts.branches, answer, counted);
    spectrumChart(this.charts.spectrum, answer);
    drawTensors(this.root, answer);
    drawUpdate(this.find(".pg-delta"), answer);
  }

  figures() {
    const { rank, parameters, survivors, used } = this.answer;
    const percent = (share) => `${fixed(100 * share, 1)} %`;
    const kept = (role) => [percent(survivors[role].share), h("span.rl-sub", {}, ` expected ${percent(survivors[role].expected)}`)];
    const entries = [
      ["A: kept by some mask", kept("A"), "survivors"],
      ["B: kept by some mask", kept("B"), "survivors"],
      ["parameters kept", [whole(parameters.kept), h("span.rl-sub", {}, ` of ${whole(parameters.dense)}`)], "parameters"],
      ["as many as LoRA of", `r = ${fixed(parameters.equal_rank, 2)}`, "parameters"],
      ["effective rank", fixed(rank.effective, 1), "effective"],
      ["stable rank", fixed(rank.stable, 1), "stable"],
      ["zeros in a mask", used.masks === "none" ? "no masks" : percent(used.sparsity), "masks"],
      ["of the layer's values", percent(parameters.kept / parameters.layer), "parameters"],
    ];
    const list = this.find(".pg-figures");
    if (!list.childElementCount) {
      list.replaceChildren(...entries.map(([name, , key]) => h("div", {}, h("dt", {}, name, " ", term(key, name)), h("dd"))));
    }
    entries.forEach(([, content], place) => list.children[place].querySelector("dd").replaceChildren(...[content].flat()));
  }
}

function shareSentence(draws) {
  const equal = `${fixed(100 * draws.share_equal, 1)} % of ${draws.draws} draws have rank d·r = ${draws.target}`;
  const spread = draws.least_rank === draws.largest_rank ? `all have rank ${draws.least_rank}` : `ranks from ${draws.least_rank} to ${draws.largest_rank}, mean ${fixed(draws.mean_rank, 1)}`;
  return `The theorem over draws: ${equal}; ${spread}.`;
}

/** What counts the same draws without a page. */
function commandLine({ rank, d, sparsity, masks, sides, out_features, in_features, seed }) {
  if (masks === "none" || sides !== "both") return "# the command tries masks on both factors; here the rank is that of one product, at most r";
  const zeros = masks.includes(":") ? "" : ` --sparsity ${Number(sparsity.toFixed(4))}`;
  return `python -m peft_core theorem --rank ${rank} --d ${d}${zeros} --masks ${masks} --shape ${out_features}x${in_features} --draws 200 --seed ${seed}`;
}

function fromAddress() {
  const found = {};
  for (const part of (address().p ?? "").split(";")) {
    const [name, value] = part.split("=");
    if (!(name in SHORT) || !value) continue;
    const key = SHORT[name];
    found[key] = typeof DEFAULTS[key] === "number" && Number.isFinite(Number(value)) ? Number(value) : value.slice(0, 20);
  }
  return found;
}

/** The values that are not the default, as one word of the address. */
function toAddress(values) {
  return Object.entries(SHORT).filter(([, key]) => values[key] !== DEFAULTS[key]).map(([name, key]) => `${name}=${values[key]}`).join(";");
}

/** Draws the tab; the first question to the server is asked here. */
export function mount(element) {
  new Playground(element.querySelector(".pg"));
}
