// What every chart offers beside itself: its picture, its points, a table of it, and what it shows.

import { defined, what } from "./define.js";
import { fixed, h, has } from "./util.js";

const ROWS = 12; // of a line chart's table: steps spread over the curve
const PICTURE = { format: "png", width: 960, height: 540, scale: 2 };

export class ChartTools {
  /**
   * chart: {figure, plot, paper(): the ground's colour, drawn}. `drawn` is what is drawn now: {view: {what, file, empty},
   * raw(): rows for a file, and `lines` of a line chart, or rows(): what the table shows}.
   */
  constructor(chart) {
    this.chart = chart;
    this.about = h("span.rl-about");
    this.twin = h("div.rl-twin.rl-scroll", { tabindex: "0", role: "region", hidden: true });
    this.toggle = button("Table", "What is drawn, as a table", () => this.show(this.twin.hidden));
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
    if (lines) {
      const ends = lines.filter((line) => !line.hidden && line.curve.x.length).map((line) => `${line.look.label}: ${figure(line.curve.y.at(-1))}`);
      this.chart.plot.setAttribute("aria-label", ends.length ? `${view.yTitle} over ${view.axis}. Last points: ${ends.join("; ")}. The button "Table" has more.` : `${view.yTitle} over ${view.axis}. ${view.empty}`);
    }
    if (!this.twin.hidden) this.table();
  }

  show(on) {
    this.twin.hidden = !on;
    this.toggle.setAttribute("aria-expanded", String(on));
    if (!on) return;
    if (this.chart.drawn) this.table();
    else this.twin.replaceChildren(h("p.rl-sub", {}, "Nothing is drawn yet."));
  }

  table() {
    const { drawn } = this.chart;
    const { view } = drawn;
    this.twin.setAttribute("aria-label", `${view.yTitle} as a table`);
    const top = this.twin.scrollLeft;
    const made = drawn.lines ? ofLines(drawn) : ofRows(drawn);
    this.twin.replaceChildren(made ?? h("p.rl-sub", {}, view.empty || "Every curve is hidden."));
    this.twin.scrollLeft = top;
  }

  /** With its legend and on a plain ground, so that it can stand alone. */
  picture() {
    const { plot, drawn, paper } = this.chart;
    if (!drawn || !plot.data) return;
    savePicture({ data: plot.data, layout: plot.layout, ground: paper(), file: drawn.view.file });
  }

  points() {
    if (this.chart.drawn) save(csv(this.chart.drawn.raw()), `${this.chart.drawn.view.file}.csv`);
  }
}

/** Save a Plotly figure as a picture. layout: of a figure that is shown; height: in pixels. */
export function savePicture({ data, layout, ground, file, height = PICTURE.height, margin = { l: 64, r: 24, t: 20, b: 60 } }) {
  const traces = data.map((trace) => ({ ...trace, showlegend: trace.showlegend !== false && Boolean(trace.name) && trace.visible !== false }));
  const legend = { orientation: "h", y: -0.2 };
  const alone = { ...layout, paper_bgcolor: ground, plot_bgcolor: ground, showlegend: true, legend, autosize: false, width: PICTURE.width, height, margin };
  window.Plotly.downloadImage({ data: traces, layout: alone }, { ...PICTURE, height, filename: file });
}

function ofLines({ view, lines }) {
  const shown = lines.filter((line) => !line.hidden && line.curve.x.length);
  if (!shown.length) return null;
  const head = [view.axis, ...shown.map((line) => line.look.label)];
  const rows = spread(shown).map((x) => [figure(x), ...shown.map((line) => cell(line.curve, x))]);
  return tabled(`${view.yTitle}; mean over seeds, in brackets the lowest and highest seed; up to ${ROWS} of the points`, head, rows);
}

function ofRows({ view, raw, rows = raw }) {
  const found = rows();
  if (!found.length) return null;
  const names = Object.keys(found[0]);
  const text = (value) => (typeof value === "number" ? figure(value) : value ?? "–");
  return tabled(view.yTitle, names.map((name) => name.replaceAll("_", " ")), found.map((row) => names.map((name) => text(row[name]))));
}

function tabled(caption, head, rows) {
  const body = rows.map(([first, ...others]) => h("tr", {}, h("th", { scope: "row" }, first), others.map((value) => h("td", {}, value))));
  return h("table.rl-table", {}, h("caption.rl-sub", {}, caption), h("thead", {}, h("tr", {}, head.map((name) => h("th", { scope: "col" }, name)))), h("tbody", {}, body));
}

export const button = (text, title, onclick) => h("button.rl-button.rl-small", { type: "button", title, onclick }, text);
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

export const save = (text, name) => saveBlob(new Blob([text], { type: "text/csv" }), name);

/** Byte pictures under each other with their names, as one picture. entries: [[name, canvas]]. */
export function saveCanvases(entries, ground, ink, file) {
  const wide = 960, left = 90, gap = 8;
  const heights = entries.map(([, canvas]) => Math.max(24, Math.round(((wide - left) * canvas.clientHeight) / Math.max(1, canvas.clientWidth))));
  const made = h("canvas", { width: String(wide + gap), height: String(heights.reduce((sum, height) => sum + height + gap, gap)) });
  const pen = made.getContext("2d");
  Object.assign(pen, { fillStyle: ground, imageSmoothingEnabled: false, font: "14px system-ui, sans-serif", textBaseline: "middle" });
  pen.fillRect(0, 0, made.width, made.height);
  pen.fillStyle = ink;
  let top = gap;
  entries.forEach(([name, canvas], place) => {
    pen.fillText(name, gap, top + heights[place] / 2, left - 2 * gap);
    pen.drawImage(canvas, left, top, wide - left, heights[place]);
    top += heights[place] + gap;
  });
  made.toBlob((blob) => saveBlob(blob, `${file}.png`));
}

function saveBlob(blob, name) {
  const link = h("a", { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}
