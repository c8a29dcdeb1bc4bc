// One card per method: its look, its live figures, and the button that hides its curves. And the bars.

import { escaped, palette, paper } from "./charts.js";
import { button, csv, save, savePicture } from "./charttools.js";
import { what } from "./define.js";
import { breakable, bytes, duration, fixed, h, has, short, swatch, whole } from "./util.js";

/** Everything live about one method, from its runs' points and its row of the table. */
export function liveFigures(shown, look) {
  const runs = shown.runs.filter((run) => run.label === look.label);
  const names = runs.map((run) => run.run);
  const row = shown.table.find((entry) => entry.label === look.label);
  const points = shown.points;
  const active = points.lastMean(names, "step", "active_parameters");
  return {
    runs,
    row,
    scored: row && has(row.mean) ? row.n : names.filter((name) => has(points.last(name, "eval", "score"))).length,
    score: row && has(row.mean) ? row.mean : points.end(names, "eval", "score"),
    std: row?.std ?? null,
    final: Boolean(row && has(row.mean)),
    effective: points.end(names, "rank", "effective"),
    numerical: points.end(names, "rank", "numerical"),
    trainable: row?.trainable ?? shown.trainable.get(look.label) ?? active,
    active,
    nominal: points.lastMean(names, "step", "adapter_flops_nominal"),
    executed: points.lastMean(names, "step", "adapter_flops_executed"),
    seconds: points.lastMean(names, "step", "seconds"),
    stored: row?.stored_bytes ?? null,
    stepTime: row?.step_ms_median ?? null,
    memory: row?.peak_memory_bytes ?? null,
  };
}

export class Cards {
  constructor(root, onToggle) {
    this.root = root;
    this.onToggle = onToggle;
    this.cards = new Map();
  }

  build(labels, hidden) {
    this.cards.clear();
    this.root.replaceChildren(...labels.map((look) => this.card(look, hidden)));
  }

  card(look, hidden) {
    const score = h("span.rl-card-score");
    const figures = h("dl.rl-figures");
    const button = h("button.rl-card-name", { type: "button", "aria-pressed": String(!hidden.has(look.label)), title: "Show or hide this method's curves" }, swatch(look), h("span", {}, breakable(look.label)));
    button.addEventListener("click", () => {
      const showing = button.getAttribute("aria-pressed") === "true";
      button.setAttribute("aria-pressed", String(!showing));
      this.onToggle(look.label, showing);
    });
    const card = h("div.rl-card", { "data-label": look.label }, h("div.rl-card-top", {}, button, score), figures);
    card.style.setProperty("--rl-colour", look.colour);
    this.cards.set(look.label, { score, figures });
    return card;
  }

  update(shown) {
    for (const look of shown.labels) {
      const card = this.cards.get(look.label);
      const live = liveFigures(shown, look);
      card.score.textContent = has(live.score) ? `${fixed(live.score)}${has(live.std) ? " ± " + fixed(live.std) : ""}` : "";
      card.score.title = has(live.score) ? `${shown.metric}, ${live.final ? "mean of" : "last evaluation, mean of"} ${live.scored} seed(s)` : "";
      const entries = [
        ["eff. rank", fixed(live.effective, 1), "effective_rank"],
        ["num. rank", fixed(live.numerical, 1), "numerical_rank"],
        ["trainable", whole(live.trainable), "trainable"],
        ["active", whole(live.active), "active"],
        ["nom. FLOPs", short(live.nominal), "nominal"],
        ["exec. FLOPs", short(live.executed), "executed"],
        ["state", states(live.runs), "state"],
        ["time", duration(live.seconds), "time"],
      ];
      if (!card.values) {
        card.values = entries.map(() => h("dd"));
        card.figures.replaceChildren(...entries.map(([name, , key], place) => h("div", {}, h("dt", {}, what(key, name)), card.values[place])));
      }
      entries.forEach(([, value], place) => {
        if (card.values[place].textContent !== value) card.values[place].textContent = value;
      });
    }
  }
}

function states(runs) {
  const kinds = [...new Set(runs.map((run) => run.state))];
  if (kinds.length === 1) return kinds[0];
  return kinds.map((kind) => `${runs.filter((run) => run.state === kind).length} ${kind}`).join(", ");
}

const BARS = [
  ["Trainable parameters", "head left out", [["trainable", ""]], whole, "trainable"],
  ["Active parameters", "at the last step", [["active", ""]], whole, "active"],
  ["Adapter FLOPs so far", "nominal: non-zeros only; executed: dense", [["nominal", "nominal"], ["executed", "executed"]], short, "nominal"],
  ["Stored adapter", "head left out; known when a run has finished", [["stored", ""]], bytes, "stored"],
  ["Time of a step", "median; known when a run has finished", [["stepTime", ""]], (value) => (has(value) ? `${fixed(value, 1)} ms` : "–"), "step_time"],
  ["Peak memory", "of the process; known when a run has finished", [["memory", ""]], bytes, "memory"],
];

export function drawBars(root, shown) {
  const live = shown.labels.map((look) => ({ look, figures: liveFigures(shown, look) }));
  const texts = JSON.stringify(live.map(({ look, figures: { runs, row, ...rest } }) => [look, rest]));
  if (root.dataset.texts === texts) return;
  root.dataset.texts = texts;
  const focused = root.contains(document.activeElement) ? document.activeElement.dataset.what : null;
  root.replaceChildren(barsHead(shown, live), ...BARS.map(([title, help, keys, format, key]) => {
    const largest = Math.max(0, ...live.flatMap(({ figures }) => keys.map(([key]) => figures[key] ?? 0)));
    return h("section", {}, h("h4", {}, title, " ", what(key), h("span.rl-sub", {}, ` ${help}`)),
      live.map(({ look, figures }) => barRows(look, figures, keys, largest, format)));
  }));
  if (focused) root.querySelector(`[data-what="${focused}"]`)?.focus();
}

function barsHead(shown, live) {
  const file = `ranklab-${shown.id}-costs`;
  const columns = BARS.flatMap(([title, , keys]) => keys.map(([key, name]) => [[title, name].filter(Boolean).join(", "), key]));
  const rows = () => live.map(({ look, figures }) => ({ method: look.label, ...Object.fromEntries(columns.map(([name, key]) => [name, figures[key]])) }));
  return h("div.rl-bars-head", {}, h("span.rl-title", {}, "What it costs"), live.some(({ figures }) => has(figures.trainable)) ? null : h("span.rl-sub", {}, shown.ended ? "Nothing is known: no run came to its first step." : "The first figures come with the first step."), h("span.rl-chart-tools", { role: "group", "aria-label": "Chart" },
    button("PNG", "Save these bars as a picture", () => window.Plotly && savePicture({ ...barFigure(live), ground: palette().panel, file })),
    button("CSV", "Save the figures of these bars", () => save(csv(rows()), `${file}.csv`))));
}

/** The bars as a Plotly figure: a panel for each quantity, its methods told by colour. */
function barFigure(live) {
  const { axis, ...rest } = paper();
  const layout = { ...rest, barmode: "group", grid: { rows: 2, columns: 3, pattern: "independent", ygap: 0.3 }, annotations: [] };
  const data = BARS.flatMap(([title, , keys, format], panel) => {
    const number = panel ? panel + 1 : "";
    layout[`xaxis${number}`] = { ...axis, nticks: 4, exponentformat: "SI" };
    layout[`yaxis${number}`] = { ...axis, showticklabels: keys.length > 1, autorange: "reversed" };
    layout.annotations.push({ text: title, xref: `x${number} domain`, yref: `y${number} domain`, x: 0, y: 1.02, xanchor: "left", yanchor: "bottom", showarrow: false });
    return live.map(({ look, figures }) => ({ type: "bar", orientation: "h", name: escaped(look.label), showlegend: panel === 0, x: keys.map(([key]) => figures[key]), y: keys.map(([, name]) => name), text: keys.map(([key]) => format(figures[key])), marker: { color: look.colour }, xaxis: `x${number}`, yaxis: `y${number}` }));
  });
  return { data, layout, margin: { l: 64, r: 24, t: 40, b: 60 } };
}

function barRows(look, figures, keys, largest, format) {
  return keys.map(([key, name], place) => {
    const fill = h(`i${place ? ".rl-hatched" : ""}`);
    if (has(figures[key])) fill.className += " rl-some";
    fill.style.cssText = `width:${largest ? (100 * (figures[key] ?? 0)) / largest : 0}%;--rl-colour:${look.colour}`;
    const text = name ? `${name} ` : "";
    return h("div.rl-barrow", { title: look.label }, h("span.rl-barname", {}, place ? "" : look.label), h("span.rl-barline", {}, fill), h("span.rl-barvalue", {}, `${text}${format(figures[key])}`));
  });
}
