// The Pareto front of any two figures. The server says which methods are on it; what lacks a figure is left out.

import { CONFIG, escaped, palette, paper } from "./charts.js";
import { ChartTools } from "./charttools.js";
import { what } from "./define.js";
import { h, has } from "./util.js";

export class Pareto {
  constructor(figure) {
    this.plot = figure.querySelector(".rl-plot");
    this.note = figure.querySelector(".rl-note");
    this.leftOut = figure.querySelector(".rl-left-out");
    this.figure = figure;
    figure.querySelector(".rl-title").after(what("pareto"));
    this.paper = () => palette().panel;
    this.tools = new ChartTools(this);
    this.selects = [".rl-pareto-x", ".rl-pareto-y"].map((name) => figure.querySelector(name));
    this.chosen = { x: "trainable", y: "mean" };
    this.selects.forEach((select, place) => select.addEventListener("change", () => {
      const [changed, other] = place ? ["y", "x"] : ["x", "y"];
      if (this.chosen[other] === select.value) this.chosen[other] = this.chosen[changed];
      this.chosen[changed] = select.value;
      this.draw(this.shown);
    }));
  }

  draw(shown) {
    this.shown = shown;
    const measures = shown.pareto?.measures ?? [];
    this.offer(measures);
    const { x, y } = this.chosen;
    const points = shown.pareto?.points ?? {};
    const drawn = shown.labels.filter((look) => has(points[look.label]?.[x]) && has(points[look.label]?.[y]));
    const missing = shown.labels.filter((look) => !drawn.includes(look)).map((look) => look.label);
    this.figure.classList.toggle("rl-empty", !drawn.length);
    this.note.textContent = drawn.length ? "" : shown.ended ? `No run has both figures: ${shown.state === "finished" ? "choose others" : `this comparison ${shown.state === "interrupted" ? "was interrupted" : shown.state === "cancelled" ? "was cancelled" : "failed"} before a run finished`}.` : "The first point comes with the first finished run.";
    this.leftOut.textContent = drawn.length && missing.length ? `Without both figures: ${missing.join("; ")}.` : "";
    const drawing = JSON.stringify([shown.pareto, this.chosen, shown.labels, palette()]);
    if (!window.Plotly || drawing === this.drawing) return;
    this.drawing = drawing;
    const front = drawn.length ? shown.pareto.fronts[`${x} ${y}`] : [];
    const rows = () => drawn.map(({ label }) => ({ method: label, [titleOf(measures, x)]: points[label][x], [titleOf(measures, y)]: points[label][y], front: front.includes(label) ? "yes" : "no" }));
    this.drawn = { view: { yTitle: "Pareto front", file: `ranklab-${shown.id}-pareto`, empty: this.note.textContent }, raw: rows };
    this.tools.update();
    window.Plotly.react(this.plot, [this.line(front, points), ...drawn.map((look) => this.point(look, points, front))], this.layout(measures), CONFIG);
  }

  offer(measures) {
    const keys = measures.map((measure) => measure.key);
    this.figure.querySelector(".rl-pair-of").hidden = keys.length < 2;
    if (keys.length > 1 && !keys.includes(this.chosen.x)) this.chosen.x = keys.find((key) => key !== this.chosen.y);
    if (keys.length > 1 && !keys.includes(this.chosen.y)) this.chosen.y = keys.find((key) => key !== this.chosen.x);
    this.selects.forEach((select, place) => {
      if (select.dataset.keys !== keys.join(" ")) select.replaceChildren(...measures.map((measure) => h("option", { value: measure.key }, measure.title)));
      select.dataset.keys = keys.join(" ");
      select.value = place ? this.chosen.y : this.chosen.x;
      select.disabled = keys.length < 2;
    });
  }

  line(front, points) {
    const at = (axis) => front.map((label) => points[label][this.chosen[axis]]);
    return { type: "scatter", mode: "lines", x: at("x"), y: at("y"), line: { color: palette().soft, dash: "dot", width: 1 }, hoverinfo: "skip" };
  }

  point(look, points, front) {
    const { x, y } = this.chosen;
    const on = front.includes(look.label);
    const marker = { color: look.colour, symbol: on ? look.marker : `${look.marker}-open`, size: 11, line: { color: look.colour, width: 2 } };
    return { type: "scatter", mode: "markers", name: escaped(look.label), x: [points[look.label][x]], y: [points[look.label][y]], marker, hovertemplate: `%{x:.6g}, %{y:.4g}${on ? " (on the front)" : ""}` };
  }

  layout(measures) {
    const { x, y } = this.chosen;
    const { axis, ...layout } = paper();
    const named = (key) => ({ ...axis, title: { text: titleOf(measures, key), font: { size: 11 }, standoff: 6 }, exponentformat: "SI", uirevision: key });
    return { ...layout, hovermode: "closest", uirevision: `${x} ${y}`, xaxis: named(x), yaxis: named(y) };
  }
}

const titleOf = (measures, key) => measures.find((measure) => measure.key === key)?.title ?? key;
