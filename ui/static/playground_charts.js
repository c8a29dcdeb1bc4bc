// The playground's charts: rank by number of branches, spectrum, and captured shares. Drawn in place by Plotly.react.

import { CONFIG, escaped, palette, paper, plotly } from "./charts.js";
import { ChartTools } from "./charttools.js";

const BLUE = "#0072b2", ORANGE = "#d55e00";
const MOST_ROWS = 12; // of the fit's table

/** A chart's parts, with its tools. */
export function chartOf(figure) {
  const find = (name) => figure.querySelector(name);
  const chart = { figure, plot: find(".rl-plot"), note: find(".rl-note"), said: find(".pg-said"), paper: () => palette().panel };
  chart.tools = new ChartTools(chart);
  return chart;
}

/** Draw now, or as soon as Plotly is there; a chart without points says why. raw(), rows(): as `ChartTools` takes them. */
function draw(chart, traces, layout, empty, said, { name, raw, rows }) {
  chart.said.textContent = said;
  chart.drawn = { view: { yTitle: name, file: `ranklab-${name.toLowerCase().replaceAll(" ", "-")}`, empty }, raw, rows: rows ?? raw };
  chart.tools.update();
  const job = chart.job = () => {
    if (job !== chart.job) return;
    const drawn = traces.length > 0;
    chart.note.textContent = drawn ? "" : empty;
    chart.figure.classList.toggle("rl-empty", !drawn);
    window.Plotly.react(chart.plot, traces, layout(), CONFIG);
  };
  if (window.Plotly) job();
  else plotly.then(job);
}

function layoutOf(x, y, revision, more = {}) {
  const { axis, ...rest } = paper();
  const title = (text) => ({ text, font: { size: 11, color: palette().soft }, standoff: 6 });
  const legend = { orientation: "h", y: 1.02, yanchor: "bottom", x: 0, font: { size: 11 } };
  const { xaxis, yaxis, ...others } = more;
  return { ...rest, showlegend: true, legend, uirevision: revision, hovermode: "closest", xaxis: { ...axis, title: title(x), ...xaxis }, yaxis: { ...axis, title: title(y), ...yaxis }, ...others };
}

/** draws: what was counted for these settings, or null: then the point of the shown d is all there is. */
export function branchesChart(chart, answer, draws) {
  const { used, rank, bound, target, side } = answer;
  const entries = draws?.branches ?? [{ d: used.d, rank: rank.numerical, bound, target }];
  const d = entries.map((entry) => entry.d);
  const line = (name, y, style) => ({ type: "scatter", mode: d.length > 1 ? "lines" : "markers", name, x: d, y, ...style, hovertemplate: `%{y} at d = %{x}<extra>${name}</extra>` });
  const traces = [
    line("d·r", entries.map((entry) => entry.target), { line: { color: palette().soft, dash: "dot", width: 1.5 }, marker: { color: palette().soft, symbol: "line-ew-open", size: 12 } }),
    line("bound", entries.map((entry) => entry.bound), { line: { color: ORANGE, width: 8 }, opacity: 0.4, marker: { color: ORANGE, symbol: "square", size: 13 } }),
    line("measured rank", entries.map((entry) => entry.rank), { mode: d.length > 1 ? "lines+markers" : "markers", line: { color: BLUE, width: 2 }, marker: { color: BLUE, size: 7 } }),
    { type: "scatter", mode: "markers", name: `d = ${used.d}, shown`, x: [used.d], y: [rank.numerical], marker: { color: BLUE, size: 15, symbol: "circle-open", line: { width: 3 } }, hoverinfo: "skip" },
  ];
  const layout = () => layoutOf("branches d", "rank", `${target / used.d} ${side}`, { xaxis: { dtick: 1, range: [0.6, 8.4] }, yaxis: { rangemode: "tozero" } });
  const raw = () => entries.map((entry) => ({ d: entry.d, rank: entry.rank, bound: entry.bound, "d·r": entry.target }));
  draw(chart, traces, layout, "", entries.map((entry) => `d = ${entry.d}: rank ${entry.rank}, bound ${entry.bound}.`).join(" "), { name: "Rank by branches", raw });
}

const rankWords = ({ index, value }) => `${index.at(-1)} singular values from ${value[0].toPrecision(3)} to ${value.at(-1).toPrecision(3)}`;

export function spectrumChart(chart, answer) {
  const { spectrum, plain, used, target } = answer;
  const many = spectrum.index.length > 40;
  const curve = (name, points, style) => ({ type: "scatter", mode: many ? "lines" : "lines+markers", name, x: points.index, y: points.value, ...style, hovertemplate: `σ_%{x} = %{y:.4g}<extra>${name}</extra>` });
  const traces = spectrum.index.length ? [
    curve(`under masks, d = ${used.d}`, spectrum, { line: { color: BLUE, width: 2 }, marker: { color: BLUE, size: 5 } }),
    curve("B·A without masks", plain, { line: { color: ORANGE, dash: "dash", width: 2 }, marker: { color: ORANGE, symbol: "square", size: 5 } }),
  ] : [];
  const guide = (at, text, side) => ({ type: "line", x0: at, x1: at, y0: 0, y1: 1, yref: "paper", line: { color: palette().soft, dash: "dot", width: 1 }, label: { text, textposition: "end", font: { size: 11, color: palette().soft }, textangle: 0, xanchor: side, yanchor: "top" } });
  const guides = () => [guide(used.rank, `r = ${used.rank}`, "left"), ...(used.d > 1 ? [guide(target, `d·r = ${target}`, "right")] : [])];
  const decades = spectrum.value[0] > 10 * spectrum.value.at(-1) ? { dtick: 1 } : {};
  const layout = () => layoutOf("index", "singular value", `${used.rank}`, { yaxis: { type: "log", exponentformat: "power", ...decades }, xaxis: { range: [0, 1.06 * Math.max(target, used.rank, 4)] }, shapes: guides() });
  const ends = spectrum.index.length ? `${rankWords(spectrum)} under masks; ${rankWords(plain)} without.` : "";
  const raw = () => spectrum.index.map((index, place) => ({ index, under_masks: spectrum.value[place], without_masks: plain.value[plain.index.indexOf(index)] ?? null }));
  draw(chart, traces, layout, "ΔW is zero: the masks keep no value in A or in B.", ends, { name: "Spectrum", raw });
}

/** steps: numbers; rows: [{label, look, best, exact, captured: [...]}]. */
export function fitChart(chart, steps, rows, why) {
  const traces = steps.length ? rows.flatMap((row) => [
    { type: "scatter", mode: "lines", name: escaped(row.label), legendgroup: row.label, x: steps, y: row.captured, line: { color: row.look.colour, dash: row.look.dash, width: 2 }, hovertemplate: `%{y:.3f} at step %{x}<extra>${escaped(row.label)}</extra>` },
    ...(row.exact ? [{ type: "scatter", mode: "lines", showlegend: false, legendgroup: row.label, x: [0, steps.at(-1)], y: [row.best, row.best], line: { color: row.look.colour, dash: "dot", width: 1 }, hovertemplate: `%{y:.3f}: exact optimum<extra>${escaped(row.label)}</extra>` }] : []),
  ]) : [];
  const top = 1.06 * Math.max(0.1, ...rows.flatMap((row) => [...row.captured, row.exact ? row.best : 0]));
  const layout = () => layoutOf("step", "share captured", "fit", { yaxis: { range: [0, top], uirevision: rows.map((row) => row.label).join() } });
  const at = (step, place) => ({ step, ...Object.fromEntries(rows.map((row) => [row.label, row.captured[place]])) });
  const raw = () => steps.map(at);
  const every = Math.max(1, Math.ceil(steps.length / MOST_ROWS));
  const few = () => steps.map(at).filter((_, place) => place % every === 0 || place === steps.length - 1);
  draw(chart, traces, layout, why, "The table below has the last value of every curve.", { name: "Share captured", raw, rows: few });
}
