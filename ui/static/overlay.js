// Curves of any runs of any comparisons in one chart.

import { Chart } from "./charts.js";
import { keyOf } from "./define.js";
import { Points } from "./points.js";
import { get, h, has, Offline, reached, read, Refusal, swatch, words } from "./util.js";

const MOST = 24;
const QUANTITIES = { score: ["eval", "score"], loss: ["step", "loss"], rank: ["rank", "effective"] };
const SMOOTHING = 0.8;

export class Overlay {
  constructor(figure, onChange) {
    this.figure = figure;
    this.find = (selector) => figure.querySelector(selector);
    this.onChange = onChange;
    this.chart = new Chart(figure);
    this.quantity = "score";
    this.runs = [];
    this.known = new Map();
    this.points = new Points();
    this.find(".rl-quantity").addEventListener("change", (event) => {
      this.quantity = event.target.value;
      this.draw();
    });
    new MutationObserver(() => figure.offsetParent && this.draw()).observe(document.body, { attributes: true, attributeFilter: ["class"] });
  }

  async open(runs) {
    this.runs = [...new Set(runs)].slice(0, MOST);
    await this.refresh();
  }

  /** Put a run in or take it out; false where there is no more room. */
  pick(run, on) {
    if (on && this.runs.length >= MOST) {
      this.find(".rl-beware").textContent = `At most ${MOST} runs fit into one chart; take one out first.`;
      return false;
    }
    this.runs = on ? [...this.runs, run] : this.runs.filter((name) => name !== run);
    this.onChange();
    this.refresh();
    return true;
  }

  /** Ask for what is new of the chosen runs. */
  async refresh() {
    if (!this.runs.length) return this.draw();
    const wanted = this.runs.map((run) => `${run}@${this.known.get(run)?.seq ?? 0}`);
    try {
      const query = new URLSearchParams(wanted.map((text) => ["run", text]));
      const found = await read(await reached(fetch(`ranklab/runs/curves?${query}`, { cache: "no-store" })));
      this.merge(found);
    } catch (error) {
      if (error instanceof Refusal && this.runs.length > 1) await this.dropMissing();
      else if (error instanceof Refusal) this.forget(this.runs[0]);
      else if (!(error instanceof Offline)) throw error;
    }
    this.draw();
  }

  merge(found) {
    this.looks = found.looks;
    this.refused = found.refused;
    for (const { points, ...run } of found.runs) {
      if ((this.known.get(run.run)?.seq ?? 0) !== run.after) continue;
      this.known.set(run.run, run);
      if (points.step) this.points.merge({ [run.run]: points });
    }
  }

  /** One of the runs is gone: find out which. */
  async dropMissing() {
    for (const run of [...this.runs]) {
      try {
        await get("runs/curves", { run: `${run}@${Number.MAX_SAFE_INTEGER}` });
      } catch (error) {
        if (!(error instanceof Refusal)) throw error;
        this.forget(run);
      }
    }
    if (this.runs.length) await this.refresh();
  }

  forget(run) {
    this.runs = this.runs.filter((name) => name !== run);
    this.known.delete(run);
    this.onChange();
  }

  /** A colour for each method and setting, a dash and a marker for each run of it. */
  looksOf(runs) {
    const labels = [...new Set(runs.map((run) => run.label))];
    const many = labels.length < runs.length;
    const seen = new Map();
    return runs.map((run) => {
      const place = labels.indexOf(run.label);
      const turn = seen.get(run.label) ?? 0;
      seen.set(run.label, turn + 1);
      const second = this.looks[many ? turn % this.looks.length : place];
      return { ...this.looks[place], dash: second.dash, marker: second.marker, label: `${run.label}, seed ${run.seed}, ${run.run}` };
    });
  }

  draw() {
    const runs = this.runs.map((run) => this.known.get(run)).filter(Boolean);
    const looks = runs.length ? this.looksOf(runs) : [];
    const refused = this.refused?.[this.quantity];
    const [part, column] = QUANTITIES[this.quantity];
    const shown = refused ? [] : runs;
    const lines = (detail) => shown.map((run, place) => ({ look: looks[place], hidden: false, curve: this.points.curve([run.run], part, column, "step", this.quantity === "loss" ? SMOOTHING : 0, detail) }));
    const yTitle = this.quantity === "score" ? words(runs[0]?.metric ?? "score") : { loss: "loss, smoothed", rank: "effective rank" }[this.quantity];
    const view = { axis: "step", yTitle, tozero: this.quantity === "rank", revision: this.quantity, empty: refused ?? this.why(runs), file: `ranklab-${this.quantity}`, what: { score: keyOf(runs[0]?.metric), loss: "loss", rank: "effective_rank" }[this.quantity] };
    const raw = () => shown.flatMap((run) => this.points.raw(run.run, part, column).map((row) => ({ method: run.label, seed: run.seed, run: run.run, ...row })));
    const version = [this.points.version(part), refused ?? "", ...looks.map((look) => look.label)].join("|");
    this.chart.draw({ lines, guides: [], view, raw, version });
    this.find(".rl-key").replaceChildren(...runs.map((run, place) => this.entry(run, looks[place])));
    const tasks = new Set(runs.map((run) => run.task));
    this.find(".rl-beware").textContent = this.quantity === "loss" && tasks.size > 1 ? "These runs are of different tasks, so their losses measure different things." : "";
  }

  entry(run, look) {
    const away = h("button.rl-button.rl-small", { type: "button", "aria-label": `Take ${look.label} out of the chart` }, "×");
    away.addEventListener("click", () => this.pick(run.run, false));
    return h("li", {}, swatch(look), h("span", {}, `${look.label} · ${run.task} · ${run.model}${run.state === "finished" ? "" : ` · ${run.state}`}`, run.error ? h("div.rl-problem", {}, run.error) : null), away);
  }

  why(runs) {
    if (!this.runs.length) return "Tick runs in the list to lay their curves over each other.";
    if (runs.length && runs.every((run) => run.error)) return `No curve: ${runs[0].error}`;
    if (this.quantity === "rank") return "None of these runs measured a rank: it is measured at evaluations, for methods that change weights by a low-rank update.";
    return runs.some((run) => has(run.state) && !["finished", "failed", "cancelled", "interrupted"].includes(run.state)) ? "The first point comes with the evaluation before the first step; a queued run waits for its turn first." : "These runs recorded no points of it; an imported adapter has none.";
  }
}
