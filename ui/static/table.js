// The results table: sortable by every column, figures of unfinished methods marked as "so far".

import { liveFigures } from "./cards.js";
import { keyOf, what } from "./define.js";
import { breakable, bytes, duration, fixed, h, has, short, signed, swatch, whole, words } from "./util.js";

const interval = (range) => (range ? ` [${signed(range[0])}, ${signed(range[1])}]` : "");

// name, value to sort by, what is shown, class, definition
const COLUMNS = [
  ["method", (row) => row.label, (row) => h("span.rl-cellname", {}, swatch(row.look), h("span", {}, breakable(row.label))), "text"],
  ["score", (row) => row.score, (row) => [scoreCell(row), otherScores(row)], "", "score"],
  ["n", (row) => row.n, (row) => String(row.n), "", "n"],
  ["difference [95 %]", (row) => row.versus?.mean_difference, (row) => differenceCell(row), "", "difference"],
  ["p (Holm)", (row) => row.versus?.p_sign_flip, (row) => pCell(row), "", "p_value"],
  ["rank", (row) => row.rank?.numerical_mean ?? row.live.numerical, (row) => fixed(row.rank?.numerical_mean ?? row.live.numerical, 1), "", "numerical_rank"],
  ["eff. rank", (row) => row.rank?.effective_mean ?? row.live.effective, (row) => fixed(row.rank?.effective_mean ?? row.live.effective, 2), "", "effective_rank"],
  ["trainable", (row) => row.live.trainable, (row) => whole(row.live.trainable), "", "trainable"],
  ["%", (row) => row.trainable_percent, (row) => fixed(row.trainable_percent, 2), "", "trainable_percent"],
  ["FLOPs nominal", (row) => row.adapter_flops_nominal, (row) => short(row.adapter_flops_nominal), "", "nominal"],
  ["executed", (row) => row.adapter_flops_executed, (row) => short(row.adapter_flops_executed), "", "executed"],
  ["vs LoRA", (row) => row.flops_vs_lora, (row) => (has(row.flops_vs_lora) ? fixed(row.flops_vs_lora, 2) + "×" : "–"), "", "vs_lora"],
  ["stored", (row) => row.stored_bytes, (row) => bytes(row.stored_bytes), "", "stored"],
  ["time", (row) => row.seconds ?? row.live.seconds, (row) => duration(row.seconds ?? row.live.seconds), "", "time"],
  ["ms/step", (row) => row.step_ms_median, (row) => fixed(row.step_ms_median, 1), "", "step_time"],
  ["peak memory", (row) => row.peak_memory_bytes, (row) => bytes(row.peak_memory_bytes), "", "memory"],
];

function scoreCell(row) {
  if (!has(row.score)) return "–";
  if (!row.live.final) return `${fixed(row.score)} so far`;
  return has(row.std) ? `${fixed(row.score)} ± ${fixed(row.std)}` : fixed(row.score);
}

/** Means of the metrics beside the one that is shown: each task's own, or a task's second one. */
function otherScores(row) {
  const others = Object.entries(row.scores ?? {}).filter(([name, value]) => name !== row.metric && has(value));
  return others.map(([name, value]) => h("div.rl-sub", {}, `${words(name).replace(".", ": ")} ${fixed(value)}`));
}

function differenceCell(row) {
  if (!row.versus) return row.isReference ? "reference" : "–";
  const { mean_difference: mean, ci95, bootstrap95, n } = row.versus;
  if (!has(mean)) return "–";
  if (n > 1) return signed(mean) + interval(ci95);
  return [signed(mean) + interval(bootstrap95), h("div.rl-sub", {}, bootstrap95 ? "one seed; bootstrap over rows" : "one seed: no interval")];
}

function pCell(row) {
  if (!has(row.versus?.p_sign_flip)) return "–";
  return `${row.versus.p_sign_flip.toPrecision(2)} (${row.versus.p_holm.toPrecision(2)})`;
}

export class Table {
  constructor(element) {
    this.element = element;
    this.sorted = { column: null, up: false };
  }

  draw(shown) {
    this.shown = shown;
    const rows = shown.table.map((entry) => {
      const look = shown.labels.find((candidate) => candidate.label === entry.label);
      const live = liveFigures(shown, look);
      return { ...entry, look, live, score: live.score, metric: shown.metric, isReference: !entry.versus };
    });
    const text = JSON.stringify([rows.map(({ live: { runs, row, ...live }, ...rest }) => [live, rest]), this.sorted]);
    if (text === this.text) return;
    this.text = text;
    const focused = this.element.contains(document.activeElement) ? document.activeElement.closest("th")?.cellIndex : undefined;
    const within = document.activeElement?.classList.contains("rl-ask") ? ".rl-ask" : "button";
    this.element.replaceChildren(this.head(), h("tbody", {}, this.order(rows).map((row) => this.row(row))));
    if (focused !== undefined) this.element.querySelectorAll("thead th")[focused]?.querySelector(within)?.focus();
  }

  head() {
    const cells = COLUMNS.map(([name, , , kind, key], index) => {
      const active = this.sorted.column === index;
      const button = h("button", { type: "button", title: "sort", onclick: () => this.sort(index) }, name === "score" && this.shown.metric ? words(this.shown.metric) : name, active ? (this.sorted.up ? " ↑" : " ↓") : "");
      return h("th", { scope: "col", class: kind || null, "aria-sort": active ? (this.sorted.up ? "ascending" : "descending") : null }, button, key ? what(key === "score" ? keyOf(this.shown.metric) : key) : null);
    });
    return h("thead", {}, h("tr", {}, cells));
  }

  row(row) {
    const cells = COLUMNS.map(([, , show, kind], index) => h(index ? "td" : "th", { class: kind || null, scope: index ? null : "row" }, show(row)));
    return h("tr", {}, cells);
  }

  sort(index) {
    const same = this.sorted.column === index;
    if (same && this.sorted.up) this.sorted = { column: null, up: false };
    else this.sorted = { column: index, up: same };
    this.draw(this.shown);
  }

  order(rows) {
    if (this.sorted.column === null) return rows;
    const value = COLUMNS[this.sorted.column][1];
    const direction = this.sorted.up ? 1 : -1;
    return [...rows].sort((a, b) => {
      const [left, right] = [value(a), value(b)];
      if (!has(left) || !has(right)) return has(left) ? -1 : has(right) ? 1 : 0;
      return direction * (typeof left === "string" ? left.localeCompare(right) : left - right);
    });
  }
}
