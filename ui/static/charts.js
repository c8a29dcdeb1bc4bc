// The live line charts. Plotly.react draws in place; `uirevision` keeps the visitor's zoom over updates.

import { ChartTools } from "./charttools.js";
import { has } from "./util.js";

export const CONFIG = { responsive: true, displaylogo: false, modeBarButtonsToRemove: ["toImage", "select2d", "lasso2d", "autoScale2d"] };

/** Resolves when Plotly's script is there. */
export const plotly = new Promise((resolve) => {
  const look = () => (window.Plotly ? resolve() : setTimeout(look, 30));
  look();
});

export const AXES = { step: "step", seconds: "seconds of training", flops: "FLOPs executed", place: "place, from the largest" };

function translucent(colour, alpha) {
  const part = (start) => parseInt(colour.slice(start, start + 2), 16);
  return `rgba(${part(1)},${part(3)},${part(5)},${alpha})`;
}

let known = {};

/** The theme's colours; read again when the theme, a class of the body, changes. */
export function palette() {
  if (known.text && known.theme === document.body.className) return known;
  const style = getComputedStyle(document.querySelector(".rl"));
  const pick = (name) => style.getPropertyValue(name).trim();
  known = { theme: document.body.className, text: pick("--rl-text"), soft: pick("--rl-soft"), grid: pick("--rl-grid"), panel: pick("--rl-panel") };
  return known;
}

export const escaped = (text) => text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");

/** What every chart has: size, fonts, colours; `axis` is for each of its axes. */
export function paper() {
  const colours = palette();
  return {
    autosize: true,
    margin: { l: 48, r: 14, t: 28, b: 38 }, // the buttons stand above the curves and their guides
    font: { family: "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif", size: 12, color: colours.text },
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    showlegend: false,
    hoverlabel: { bgcolor: colours.panel, bordercolor: colours.grid, font: { size: 12, color: colours.text } },
    modebar: { bgcolor: "rgba(0,0,0,0)", color: colours.soft, activecolor: colours.text },
    axis: { gridcolor: colours.grid, zeroline: false, automargin: true, tickfont: { size: 11 }, linecolor: colours.grid },
  };
}

const POINTS_PER_PIXEL = 0.5; // of a line's points: lines are two pixels wide, so more could not be told apart
const LEAST_POINTS = 120;

export class Chart {
  constructor(figure) {
    this.figure = figure;
    this.plot = figure.querySelector(".rl-plot");
    this.plot.setAttribute("role", "group"); // no picture: it holds the buttons that zoom
    this.note = figure.querySelector(".rl-note");
    this.visible = true;
    this.pending = null;
    this.paper = () => palette().panel;
    this.tools = new ChartTools(this);
    plotly.then(() => this.pending && this.draw(this.pending));
    new IntersectionObserver((entries) => {
      this.visible = entries.at(-1).isIntersecting;
      if (this.visible && this.pending) this.draw(this.pending);
    }, { rootMargin: "200px" }).observe(figure);
    new ResizeObserver(() => {
      if (this.drawn && this.plot.clientHeight && this.plot.clientHeight !== this.drawn.height) this.draw(this.drawn.job);
    }).observe(this.plot);
  }

  /**
   * lines(detail): [{look, curve, hidden}] with as many points as `detail` asks for; guides: [{text, y}];
   * view: {axis, yTitle, log, tozero, revision, empty, what, file}; raw(): every point, for a file; version: a text that
   * is another one when the lines are. What is drawn already is not drawn again.
   */
  draw(job) {
    if (!this.visible || !window.Plotly) {
      this.pending = job;
      return;
    }
    this.pending = null;
    const { guides, view, raw } = job;
    const detail = this.detail(view);
    const key = JSON.stringify([job.version, view, guides, detail, this.plot.clientHeight, palette()]);
    if (this.drawn?.key === key) return;
    const lines = job.lines(detail);
    this.drawn = { job, key, lines, view, raw, height: this.plot.clientHeight };
    const visible = lines.filter((line) => !line.hidden);
    const some = visible.some((line) => line.curve.x.length);
    this.note.textContent = some ? "" : lines.length && !visible.length ? "Every method is hidden." : view.empty;
    this.figure.classList.toggle("rl-empty", !some);
    const traces = lines.flatMap(bandAndLine);
    if (some) traces.push(...guideTraces(guides, visible));
    window.Plotly.react(this.plot, traces, this.layout(view), CONFIG);
    if (!this.listening) this.listen();
    this.tools.update();
  }

  /** How many points a line is drawn with, and between which places of the x axis: all of it, or where it is zoomed. */
  detail(view) {
    const axis = this.plot.layout?.xaxis;
    const same = this.drawn && this.drawn.view.revision === view.revision && this.drawn.view.axis === view.axis;
    const points = Math.max(LEAST_POINTS, Math.round(POINTS_PER_PIXEL * this.plot.clientWidth));
    return { points, range: same && axis && axis.autorange === false ? [...axis.range] : null };
  }

  /** A zoom shows finer points. */
  listen() {
    this.listening = true;
    this.plot.on("plotly_relayout", (change) => {
      if (Object.keys(change).some((name) => name.startsWith("xaxis"))) this.draw(this.drawn.job);
    });
  }

  layout(view) {
    const { axis, ...rest } = paper();
    const title = (text) => ({ text, font: { size: 11, color: palette().soft }, standoff: 6 });
    axis.ticklabeloverflow = "allow"; // the margins hold them; measuring each label takes long
    return {
      ...rest,
      hovermode: "x unified",
      uirevision: view.revision,
      xaxis: { ...axis, title: title(AXES[view.axis]), rangemode: "tozero", exponentformat: "SI", uirevision: view.revision + view.axis },
      yaxis: { ...axis, title: title(view.yTitle), type: view.log ? "log" : "linear", rangemode: view.tozero ? "tozero" : "normal", uirevision: view.revision + view.yTitle + view.log },
    };
  }
}

/** Two traces: the band, one closed outline that is only there where seeds differ, and the line. */
function bandAndLine({ look, curve, hidden }) {
  const common = { type: "scatter", legendgroup: look.label };
  const wide = curve.n.some((n) => n > 1);
  const band = wide ? { x: [...curve.x, ...curve.x.toReversed()], y: [...curve.high, ...curve.low.toReversed()] } : { x: [], y: [] };
  return [
    { ...common, ...band, visible: !hidden && wide, mode: "lines", line: { width: 0 }, fill: "toself", fillcolor: translucent(look.colour, 0.16), hoverinfo: "skip" },
    {
      ...common,
      visible: !hidden,
      x: curve.x,
      y: curve.y,
      name: escaped(look.label),
      ...(wide ? { customdata: curve.n } : {}),
      mode: curve.x.length <= 30 ? "lines+markers" : "lines",
      line: { color: look.colour, dash: look.dash, width: 2 },
      marker: { symbol: look.marker, size: 6 },
      hovertemplate: `%{y:.4g} (n=${wide ? "%{customdata}" : 1})`,
    },
  ];
}

/** Dotted lines with their name at the right end: as traces, so that the axis makes room for them. */
function guideTraces(guides, lines) {
  const right = Math.max(...lines.flatMap((line) => line.curve.x));
  const colours = palette();
  return guides.filter((guide) => has(guide.y)).map((guide) => ({
    type: "scatter",
    mode: "lines+text",
    x: [0, right],
    y: [guide.y, guide.y],
    text: ["", guide.text],
    textposition: "top left",
    textfont: { size: 11, color: colours.soft },
    line: { color: colours.soft, dash: "dot", width: 1 },
    hoverinfo: "skip",
    cliponaxis: false,
  }));
}
