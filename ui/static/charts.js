// The live line charts. Plotly.react draws in place; `uirevision` keeps the visitor's zoom over updates.

import { has } from "./util.js";

export const AXES = { step: "step", seconds: "seconds of training", flops: "FLOPs executed" };

function translucent(colour, alpha) {
  const part = (start) => parseInt(colour.slice(start, start + 2), 16);
  return `rgba(${part(1)},${part(3)},${part(5)},${alpha})`;
}

export function palette() {
  const style = getComputedStyle(document.querySelector(".rl"));
  const pick = (name) => style.getPropertyValue(name).trim();
  return { text: pick("--rl-text"), soft: pick("--rl-soft"), grid: pick("--rl-grid"), panel: pick("--rl-panel") };
}

export const escaped = (text) => text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");

/** What every chart has: size, fonts, colours; `axis` is for each of its axes. */
export function paper() {
  const colours = palette();
  return {
    autosize: true,
    margin: { l: 48, r: 14, t: 10, b: 38 },
    font: { family: "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif", size: 12, color: colours.text },
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    showlegend: false,
    hoverlabel: { bgcolor: colours.panel, bordercolor: colours.grid, font: { size: 12, color: colours.text } },
    modebar: { bgcolor: "rgba(0,0,0,0)", color: colours.soft, activecolor: colours.text },
    axis: { gridcolor: colours.grid, zeroline: false, automargin: true, tickfont: { size: 11 }, linecolor: colours.grid },
  };
}

export class Chart {
  constructor(figure) {
    this.figure = figure;
    this.plot = figure.querySelector(".rl-plot");
    this.note = figure.querySelector(".rl-note");
    this.visible = true;
    this.pending = null;
    new IntersectionObserver((entries) => {
      this.visible = entries.at(-1).isIntersecting;
      if (this.visible && this.pending) this.draw(this.pending);
    }, { rootMargin: "200px" }).observe(figure);
    new ResizeObserver(() => {
      if (this.drawn && this.plot.clientHeight !== this.drawn.height) this.draw(this.drawn.job);
    }).observe(this.plot);
  }

  /** lines: [{look, curve, hidden}]; guides: [{text, y}]; view: {axis, yTitle, log, revision, empty}. */
  draw(job) {
    if (!this.visible || !window.Plotly) {
      this.pending = job;
      return;
    }
    this.pending = null;
    this.drawn = { job, height: this.plot.clientHeight };
    const { lines, guides, view } = job;
    const drawn = lines.some((line) => line.curve.x.length);
    this.note.textContent = drawn ? "" : view.empty;
    this.figure.classList.toggle("rl-empty", !drawn);
    const traces = lines.flatMap(bandAndLine);
    if (drawn) traces.push(...guideTraces(guides, lines));
    window.Plotly.react(this.plot, traces, this.layout(view), {
      responsive: true,
      displaylogo: false,
      modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"],
    });
  }

  layout(view) {
    const { axis, ...rest } = paper();
    const title = (text) => ({ text, font: { size: 11, color: palette().soft }, standoff: 6 });
    return {
      ...rest,
      hovermode: "x unified",
      uirevision: view.revision,
      xaxis: { ...axis, title: title(AXES[view.axis]), rangemode: "tozero", exponentformat: "SI", uirevision: view.revision + view.axis },
      yaxis: { ...axis, title: title(view.yTitle), type: view.log ? "log" : "linear", rangemode: view.tozero ? "tozero" : "normal", uirevision: view.revision + view.yTitle + view.log },
    };
  }
}

function bandAndLine({ look, curve, hidden }) {
  const common = { type: "scatter", x: curve.x, visible: !hidden, legendgroup: look.label };
  const edge = { ...common, mode: "lines", line: { width: 0 }, hoverinfo: "skip" };
  return [
    { ...edge, y: curve.low },
    { ...edge, y: curve.high, fill: "tonexty", fillcolor: translucent(look.colour, 0.16) },
    {
      ...common,
      name: escaped(look.label),
      y: curve.y,
      customdata: curve.n,
      mode: curve.x.length <= 30 ? "lines+markers" : "lines",
      line: { color: look.colour, dash: look.dash, width: 2 },
      marker: { symbol: look.marker, size: 6 },
      hovertemplate: "%{y:.4g} (n=%{customdata})",
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
