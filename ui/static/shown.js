// How the comparison shown is drawn: facts, progress, charts, cards, bars, table. Only the layers ask the server, once they are seen.

import { Cards, drawBars } from "./cards.js";
import { Chart } from "./charts.js";
import { keyOf, what } from "./define.js";
import { Layers } from "./layers.js";
import { Pareto } from "./pareto.js";
import { Table } from "./table.js";
import { bytes, duration, h, has, words } from "./util.js";

const RANK_TITLES = { effective: "effective rank", numerical: "numerical rank", stable: "stable rank" };
const FORMATS = { csv: "CSV", json: "JSON", md: "Markdown", tex: "LaTeX", html: "Report" };

export class Drawing {
  constructor(root) {
    this.root = root;
    this.find = (selector) => root.querySelector(selector);
    this.shown = null;
    this.hidden = new Set();
    this.settings = { axis: "step", measure: "effective", smoothing: 0.8, log: false, paused: false };
    this.cards = new Cards(this.find(".rl-cards"), (label, hide) => this.toggle(label, hide));
    this.table = new Table(this.find(".rl-table"));
    this.pareto = new Pareto(this.find("[data-pareto]"));
    this.charts = {};
    for (const figure of root.querySelectorAll("[data-chart]")) this.charts[figure.dataset.chart] = new Chart(figure);
    this.layers = new Layers(root, this.charts.spectrum, () => this.drawCharts());
  }

  /** Another comparison: everything that stays the same while it runs. */
  open(shown) {
    this.shown = shown;
    this.hidden = new Set([...this.hidden].filter((label) => shown.labels.some((look) => look.label === label)));
    this.cards.build(shown.labels, this.hidden);
    this.fixedParts();
  }

  set(change) {
    Object.assign(this.settings, change);
    this.draw();
  }

  toggle(label, hide) {
    if (hide) this.hidden.add(label);
    else this.hidden.delete(label);
    this.drawCharts();
  }

  fixedParts() {
    const { shown } = this;
    const select = this.find(".rl-recent");
    if (![...select.options].some((option) => option.value === shown.id)) select.prepend(h("option", { value: shown.id }, shown.title));
    select.value = shown.id;
    this.find(".rl-shown .rl-command").textContent = shown.command;
    this.find(".rl-reference").replaceChildren(...shown.labels.map((look) => h("option", { value: look.label }, look.label)));
    this.find('[data-chart="score"] .rl-title').textContent = words(shown.metric ?? "score");
    this.find(".rl-lock").replaceChildren(...(shown.spec.lock?.changes ?? []).map((said) => h("li", {}, said)));
    this.downloads();
  }

  downloads() {
    const reference = this.find(".rl-reference").value;
    const link = ([format, name]) => h("a", { href: `ranklab/download?${new URLSearchParams({ id: this.shown.id, format, reference })}`, download: "" }, name);
    this.find(".rl-downloads").replaceChildren(...(this.shown.own === false ? [] : Object.entries(FORMATS)).map(link));
  }

  status() {
    const { shown } = this;
    const state = this.find(".rl-state");
    state.dataset.state = shown.state;
    state.textContent = shown.shipped ? "shipped example" : shown.queue_place && shown.state === "queued" ? `queued, place ${shown.queue_place}` : shown.state;
    this.find(".rl-meta").textContent = this.meta();
    this.find(".rl-plan").textContent = shown.plan.why ?? "";
    const progress = this.find(".rl-progress");
    const percent = Math.round(100 * shown.progress);
    progress.hidden = shown.ended;
    progress.setAttribute("aria-valuenow", percent);
    progress.firstElementChild.style.width = `${percent}%`;
    this.find(".rl-again").hidden = !shown.ended;
    this.find(".rl-again").disabled = false;
    this.find(".rl-stop").hidden = shown.ended || shown.own === false; // another visitor's
    this.find(".rl-stop").disabled = shown.state === "stopping";
    this.find(".rl-resume").hidden = shown.shipped || shown.own === false || !["cancelled", "interrupted", "failed"].includes(shown.state);
    this.find('[data-chart="score"] .rl-title').textContent = words(shown.metric ?? "score");
    this.find(".rl-frozen").replaceChildren(...frozen(shown));
  }

  meta() {
    const { shown } = this;
    const device = deviceOf(shown);
    const parts = [
      shown.shipped ? `measured on ${device}` : device ? `on ${device}` : "",
      memoryOf(shown),
      `seeds ${shown.spec.seeds.join(", ")}`,
      shown.ended ? `${shown.created.slice(0, 16).replace("T", " ")} UTC` : `${Math.round(100 * shown.progress)} %`,
      !shown.ended && has(shown.eta_seconds) ? `about ${duration(shown.eta_seconds)} left` : "",
    ];
    return parts.filter(Boolean).join(" · ");
  }

  draw() {
    if (!this.shown) return;
    this.drawCharts();
    this.cards.update(this.shown);
    drawBars(this.find(".rl-bars"), this.shown);
    this.drawTable();
    this.failures();
  }

  drawTable() {
    this.table.draw(this.shown);
    this.find(".rl-notes").textContent = (this.shown.notes ?? []).join(" ");
    if (!this.settings.paused) this.pareto.draw(this.shown);
  }

  drawCharts() {
    if (this.settings.paused || !this.shown?.labels) return;
    const { shown, settings } = this;
    const [axis, revision] = [settings.axis, shown.id];
    const baseline = has(shown.baseline) ? [{ text: "baseline", y: shown.baseline }] : [];
    const metric = words(shown.metric ?? "score");
    const first = this.firstEvaluation();
    const job = (part, column, smoothing, guides, view) => ({
      lines: (detail) => this.lines(part, column, smoothing, detail),
      raw: () => this.raw(part, column),
      version: [shown.points.version(part, axis), smoothing, column, ...this.hidden].join("|"),
      guides,
      view: { axis, revision, file: `ranklab-${shown.id}-${column}`, ...view },
    });
    this.charts.score.draw(job("eval", "score", 0, baseline, { yTitle: metric, what: keyOf(shown.metric), empty: this.waiting(first) }));
    this.charts.loss.draw(job("step", "loss", settings.smoothing, [], { yTitle: "loss", what: "loss", log: settings.log, empty: this.waiting("The first point comes at step 1.") }));
    this.layers.draw(shown, settings.measure, this.hidden, (when) => this.waiting(when));
    this.charts.rank.draw(job("rank", settings.measure, 0, this.guides(), { yTitle: RANK_TITLES[settings.measure], what: `${settings.measure}_rank`, tozero: true, empty: this.waiting(`The rank is measured at every evaluation, for methods that change weights by a low-rank update. ${first}`) }));
  }

  lines(part, column, smoothing, detail) {
    return this.shown.labels.map((look) => {
      const runs = this.shown.runs.filter((run) => run.label === look.label).map((run) => run.run);
      const curve = this.shown.points.curve(runs, part, column, this.settings.axis, smoothing, detail);
      return { look, curve, hidden: this.hidden.has(look.label) };
    });
  }

  /** Every point of the curves that are not hidden, as recorded. */
  raw(part, column) {
    const runs = this.shown.runs.filter((run) => !this.hidden.has(run.label));
    return runs.flatMap((run) => this.shown.points.raw(run.run, part, column).map((row) => ({ method: run.label, seed: run.seed, run: run.run, ...row })));
  }

  guides() {
    const found = new Map();
    for (const look of this.shown.labels) {
      if (this.hidden.has(look.label)) continue;
      for (const [text, y] of Object.entries(this.shown.guides[look.label] ?? {})) found.set(text, y);
    }
    return [...found].map(([text, y]) => ({ text, y }));
  }

  firstEvaluation() {
    const next = this.shown.first_evaluation;
    return `The first point comes with the evaluation before the first step${has(next) ? `, the next at step ${next}` : ""}.`;
  }

  /** Why a chart is empty. */
  waiting(first) {
    const { shown } = this;
    if (shown.state === "queued") return shown.queue_place ? `Waiting in the queue, place ${shown.queue_place}. ${first}` : `Waiting to start. ${first}`;
    if (shown.state === "failed") return `Every run failed before its first point. ${[...new Set(shown.runs.map((run) => run.error).filter(Boolean))].join(" ")}`;
    if (shown.environment.imported) return "Nothing was recorded: it was trained elsewhere and imported.";
    return shown.ended ? `Nothing was recorded: ${shown.state} before its first point.` : first;
  }

  /** Under each curve chart, where their curves would be: why runs ended early, once for the seeds that say the same. */
  failures() {
    const found = new Map();
    for (const run of this.shown.runs.filter((one) => one.error)) {
      const key = JSON.stringify([run.label, run.state, run.error]);
      found.set(key, [...(found.get(key) ?? []), run]);
    }
    const said = JSON.stringify([...found].map(([key, runs]) => [key, runs.length]));
    if (said === this.saidFailures) return;
    this.saidFailures = said;
    const colour = (run) => this.shown.labels.find((look) => look.label === run.label)?.colour;
    const item = (runs) => {
      const [{ label, state, error }] = runs;
      const made = h("li", {}, h("strong", {}, `${label}, seed${runs.length > 1 ? "s" : ""} ${runs.map((run) => run.seed).join(", ")}, ${state}: `), error);
      made.style.borderColor = colour(runs[0]);
      return made;
    };
    for (const list of this.root.querySelectorAll(".rl-failures")) list.replaceChildren(...[...found.values()].map(item));
  }
}

function deviceOf(shown) {
  const { device, device_name: name, threads, cores } = shown.environment;
  const kind = device || shown.plan.device || "";
  const count = kind === "cpu" ? shown.plan.threads || threads || cores : null;
  return [name || kind, name && kind ? `(${kind}${count ? `, ${count} thread${count === 1 ? "" : "s"}` : ""})` : ""].filter(Boolean).join(" ");
}

/** What the comparison was expected to need, before its first step. */
function memoryOf({ plan }) {
  const { available, ...needed } = plan.memory_bytes ?? {};
  const total = Object.values(needed).reduce((sum, value) => sum + value, 0);
  return total ? `memory: about ${bytes(total)} of ${bytes(available)} free` : "";
}

function frozen(shown) {
  const configs = Object.fromEntries(shown.runs.map((run) => [run.label, run.config]));
  const parts = { comparison: shown.spec, "every option of each method": configs, plan: shown.plan, environment: shown.environment };
  return Object.entries(parts).map(([name, value]) => h("div", {}, h("h4", {}, name), h("pre", { tabindex: "0" }, JSON.stringify(value, null, 2))));
}
