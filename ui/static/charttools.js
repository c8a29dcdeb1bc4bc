// What every line chart offers beside itself: its picture, its points, a table of it, and what it shows.

import { defined, what } from "./define.js";
import { fixed, h, has } from "./util.js";

const ROWS = 12; // of the table: steps spread over the curve
const PICTURE = { format: "png", width: 960, height: 540, scale: 2 };

export class ChartTools {
  /** chart: a Chart. Its `drawn` holds what is drawn now. */
  constructor(chart) {
    this.chart = chart;
    this.about = h("span.rl-about");
    this.twin = h("div.rl-twin.rl-scroll", { tabindex: "0", role: "region", hidden: true });
    this.toggle = button("Table", "The curves as a table", () => this.show(this.twin.hidden));
    this.toggle.setAttribute("aria-expanded", "false");
    const box = h("span.rl-chart-tools", { role: "group", "aria-label": "Chart" }, this.about,
      button("PNG", "Save the chart as a picture", () => this.picture()),
      button("CSV", "Save every point of these curves", () => this.points()), this.toggle);
    chart.figure.querySelector("figcaption").append(box);
    chart.figure.append(this.twin);
  }

  /** Something else is drawn. */
  update() {
    const { view, lines } = this.chart.drawn;
    const key = view.what;
    if (this.about.dataset.key !== key) {
      this.about.dataset.key = key;
      this.about.replaceChildren(...(defined(key) ? [what(key)] : []));
    }
    const ends = lines.filter((line) => !line.hidden && line.curve.x.length).map((line) => `${line.look.label}: ${figure(line.curve.y.at(-1))}`);
    this.chart.plot.setAttribute("aria-label", ends.length ? `${view.yTitle} over ${view.axis}. Last points: ${ends.join("; ")}. The button "Table" has more.` : `${view.yTitle} over ${view.axis}. ${view.empty}`);
    if (!this.twin.hidden) this.table();
  }

  show(on) {
    this.twin.hidden = !on;
    this.toggle.setAttribute("aria-expanded", String(on));
    if (on && this.chart.drawn) this.table();
  }

  table() {
    const { view, lines } = this.chart.drawn;
    const shown = lines.filter((line) => !line.hidden && line.curve.x.length);
    this.twin.setAttribute("aria-label", `${view.yTitle} as a table`);
    if (!shown.length) {
      this.twin.replaceChildren(h("p.rl-sub", {}, view.empty || "Every curve is hidden."));
      return;
    }
    const head = h("tr", {}, h("th", { scope: "col" }, view.axis), shown.map((line) => h("th", { scope: "col" }, line.look.label)));
    const rows = spread(shown).map((x) => h("tr", {}, h("th", { scope: "row" }, figure(x)), shown.map((line) => h("td", {}, cell(line.curve, x)))));
    const caption = h("caption.rl-sub", {}, `${view.yTitle}; mean over seeds, in brackets the lowest and highest seed; up to ${ROWS} of the points`);
    const top = this.twin.scrollLeft;
    this.twin.replaceChildren(h("table.rl-table", {}, caption, h("thead", {}, head), h("tbody", {}, rows)));
    this.twin.scrollLeft = top;
  }

  /** With its legend and on a plain ground, so that it can stand alone. */
  picture() {
    const { plot, drawn, paper } = this.chart;
    if (!drawn || !plot.data) return;
    const layout = { ...plot.layout, paper_bgcolor: paper(), plot_bgcolor: paper(), showlegend: true, legend: { orientation: "h", y: -0.2 }, autosize: false, width: PICTURE.width, height: PICTURE.height, margin: { l: 64, r: 24, t: 20, b: 60 } };
    const data = plot.data.map((trace) => ({ ...trace, showlegend: Boolean(trace.name) && trace.visible !== false }));
    window.Plotly.downloadImage({ data, layout }, { ...PICTURE, filename: drawn.view.file });
  }

  points() {
    if (this.chart.drawn) save(csv(this.chart.drawn.raw()), `${this.chart.drawn.view.file}.csv`);
  }
}

const button = (text, title, onclick) => h("button.rl-button.rl-small", { type: "button", title, onclick }, text);
const figure = (value) => (!has(value) ? "–" : Number.isInteger(value) ? String(value) : Math.abs(value) >= 1e5 ? value.toExponential(2) : fixed(value, Math.abs(value) >= 100 ? 1 : 3));

/** Up to ROWS places spread over the longest curve. */
function spread(lines) {
  const longest = lines.reduce((best, line) => (line.curve.x.at(-1) > best.curve.x.at(-1) ? line : best)).curve.x;
  const count = Math.min(ROWS, longest.length);
  return [...new Set(Array.from({ length: count }, (_, place) => longest[Math.round((place * (longest.length - 1)) / Math.max(1, count - 1))]))];
}

/** The last point at or before x. */
function cell(curve, x) {
  let place = -1;
  while (place + 1 < curve.x.length && curve.x[place + 1] <= x) place++;
  if (place < 0 || (place === curve.x.length - 1 && curve.x[place] < x)) return "–";
  const range = curve.n[place] > 1 ? ` [${figure(curve.low[place])}, ${figure(curve.high[place])}]` : "";
  return figure(curve.y[place]) + range;
}

/** Rows as CSV: quoted where needed, and a text that a spreadsheet would take for a formula made plain. */
export function csv(rows) {
  const names = [...new Set(rows.flatMap((row) => Object.keys(row)))];
  const quoted = (value) => {
    const text = has(value) ? String(value) : "";
    const plain = typeof value === "string" && /^[=+@\-\t]/.test(text) ? `'${text}` : text;
    return /[",\r\n]/.test(plain) ? `"${plain.replaceAll('"', '""')}"` : plain;
  };
  return [names, ...rows.map((row) => names.map((name) => row[name]))].map((values) => values.map(quoted).join(",")).join("\r\n") + "\r\n";
}

export function save(text, name) {
  const link = h("a", { href: URL.createObjectURL(new Blob([text], { type: "text/csv" })), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}
