// Rank by layer as a table of colours for each method, singular values, and the slider of steps that both follow.

import { escaped, palette, paper } from "./charts.js";
import { csv, save, savePicture } from "./charttools.js";
import { what } from "./define.js";
import { LayerData } from "./layerdata.js";
import { breakable, fixed, h, has, swatch, whole } from "./util.js";

const MOST_METHODS = 6, FRAME = 500; // methods at once; milliseconds of a frame while it plays
const RANK_FIRST = "The rank is measured at every evaluation; the first one is before the first step.";
const SCALE = [[0, 34, 78], [65, 77, 107], [124, 123, 120], [187, 175, 113], [254, 232, 56]]; // cividis: colour-blind safe
const shade = (share) => {
  const at = Math.min(1, Math.max(0, share)) * (SCALE.length - 1), low = Math.min(SCALE.length - 2, Math.floor(at));
  return SCALE[low].map((part, index) => Math.round(part + (at - low) * (SCALE[low + 1][index] - part)));
};
const light = (rgb) => {
  const [r, g, b] = rgb.map((part) => (part / 255 <= 0.04045 ? part / 255 / 12.92 : ((part / 255 + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b > 0.179; // where black on it reads better than white
};

export class Layers {
  /** chart: the Chart of the singular values. onNews(): draw again. */
  constructor(root, chart, onNews) {
    this.figure = root.querySelector("[data-layers]");
    const find = (name) => this.figure.querySelector(name);
    [this.heats, this.note, this.slider, this.output, this.play, this.scale] = [".rl-heats", ".rl-note", ".rl-step", ".rl-at", ".rl-play", ".rl-scale"].map(find);
    [this.chart, this.onNews] = [chart, onNews];
    this.site = root.querySelector(".rl-site");
    this.tables = new Map();
    this.at = null; // a step; null: the newest
    this.seen = false;
    find(".rl-title").after(what("layer_rank"));
    find(".rl-heat-csv").addEventListener("click", () => this.save());
    find(".rl-heat-png").addEventListener("click", () => this.picture());
    this.slider.addEventListener("input", () => this.move(Number(this.slider.value)));
    this.play.addEventListener("click", () => this.run(!this.timer));
    this.site.addEventListener("change", onNews);
    const watch = new IntersectionObserver((entries) => {
      if (!entries.some((entry) => entry.isIntersecting)) return;
      this.seen = true;
      watch.disconnect();
      onNews();
    }, { rootMargin: "200px" });
    for (const figure of [this.figure, chart.figure]) watch.observe(figure);
  }

  /** waiting(first): why there is nothing yet; first: when it comes. */
  draw(shown, measure, hidden, waiting) {
    if (!this.seen) return;
    if (this.data?.shown !== shown) this.open(shown);
    Object.assign(this, { measure, hidden, waiting });
    const showing = shown.labels.filter((look) => !hidden.has(look.label));
    this.looks = showing.slice(0, MOST_METHODS);
    this.left = showing.slice(MOST_METHODS);
    for (const look of this.looks) this.data.load(look.label);
    this.data.loadSpectra(this.site.value);
    this.drawTime();
    this.drawHeats();
    this.drawSpectra();
  }

  open(shown) {
    this.data = new LayerData(shown, this.onNews);
    this.at = null;
    this.run(false);
    this.site.value = "";
    this.site.dataset.known = "";
    this.tables.clear();
    this.heats.replaceChildren();
  }

  // --- time ---

  drawTime() {
    this.steps = this.data.steps(this.looks.map((look) => look.label));
    const end = Math.max(0, this.steps.length - 1);
    const place = this.at === null ? end : Math.max(0, this.steps.findLastIndex((step) => step <= this.at));
    this.step = this.steps[place] ?? 0;
    this.slider.max = String(end);
    if (this.slider.value !== String(place)) this.slider.value = String(place);
    this.slider.disabled = this.play.disabled = end === 0;
    this.output.textContent = this.steps.length ? `step ${whole(this.step)}${place === end ? ", the newest" : ` of ${whole(this.steps[end])}`}` : "";
    this.slider.setAttribute("aria-valuetext", this.output.textContent);
  }

  move(place) {
    this.at = place >= this.steps.length - 1 ? null : this.steps[place];
    this.onNews();
  }

  run(on) {
    clearInterval(this.timer);
    this.timer = on ? setInterval(() => this.next(), FRAME) : null;
    this.play.textContent = on ? "Stop" : "Play";
    this.play.setAttribute("aria-pressed", String(on));
    if (on && this.at === null) this.move(0);
  }

  next() {
    const place = Number(this.slider.value) + 1;
    this.move(place);
    if (place >= this.steps.length - 1) this.run(false);
  }

  // --- ranks ---

  drawHeats() {
    const drawn = this.looks.filter((look) => this.data.methods.get(look.label).sites.size);
    const most = this.data.most(drawn.map((look) => look.label), this.measure);
    this.figure.classList.toggle("rl-empty", !drawn.length);
    this.note.textContent = drawn.length ? "" : this.looks.length ? this.waiting(RANK_FIRST) : "Every method is hidden.";
    this.scale.hidden = !drawn.length;
    this.scale.querySelector(".rl-most").textContent = `${fixed(most, 1)} (${this.measure} rank)${this.rest(drawn)}`;
    for (const [label, table] of this.tables) if (!drawn.some((look) => look.label === label)) this.remove(label, table);
    for (const look of drawn) this.drawMethod(look, most);
    this.offerSites(drawn);
  }

  rest(drawn) {
    const without = this.looks.filter((look) => !drawn.includes(look)).map((look) => look.label);
    const said = without.length ? ` No rank by layer yet: ${without.join("; ")}.` : "";
    return said + (this.left.length ? ` ${this.left.length} more: hide some methods to see them.` : "");
  }

  remove(label, table) {
    table.box.remove();
    this.tables.delete(label);
  }

  drawMethod(look, most) {
    const sites = [...this.data.methods.get(look.label).sites.values()];
    const shape = sites.map((site) => site.site).join(" ");
    let table = this.tables.get(look.label);
    if (table?.shape !== shape) {
      const made = build(look, sites, (site) => this.choose(site));
      if (table) table.box.replaceWith(made.box);
      else this.heats.append(made.box);
      this.tables.set(look.label, (table = { ...made, shape }));
    }
    for (const { site, layer, role } of sites) {
      const value = this.data.rank(look.label, site, this.measure, this.step), cell = table.cells.get(site);
      const text = has(value) ? fixed(value, Number.isInteger(value) ? 0 : 1) : "–";
      if (cell.textContent === text && cell.dataset.most === String(most)) continue;
      const colour = shade(most ? (value ?? 0) / most : 0);
      cell.textContent = text;
      cell.dataset.most = String(most);
      cell.style.cssText = has(value) ? `background:rgb(${colour.join(" ")});color:${light(colour) ? "#000" : "#fff"}` : "";
      cell.title = `layer ${layer}, ${role} (${site}): ${this.measure} rank ${has(value) ? fixed(value, 2) : "not measured"}`;
    }
  }

  // --- singular values ---

  offerSites(drawn) {
    const sites = [...new Set(drawn.flatMap((look) => [...this.data.methods.get(look.label).sites.keys()]))];
    const known = sites.join(" ");
    if (this.site.dataset.known === known) return;
    const chosen = this.site.value;
    this.site.dataset.known = known;
    this.site.replaceChildren(h("option", { value: "" }, "all layers, mean"), ...sites.map((site) => h("option", { value: site }, site)));
    this.site.value = sites.includes(chosen) ? chosen : "";
  }

  choose(site) {
    this.site.value = site;
    this.onNews();
  }

  drawSpectra() {
    const { data, step, hidden } = this, site = this.site.value, { shown } = data;
    this.chart.draw({
      lines: () => shown.labels.map((look) => ({ look, hidden: hidden.has(look.label), curve: data.spectrum(look.label, site, step) })),
      raw: () => this.rawSpectra(site),
      version: [data.version, step, site, ...hidden].join("|"),
      guides: [],
      view: { axis: "place", yTitle: `singular value${site ? ` of ${site}` : ""}, step ${whole(step)}`, log: true, revision: `${shown.id} ${site}`, empty: this.noSpectra(site), what: "spectrum", file: `ranklab-${shown.id}-singular-values` },
    });
  }

  noSpectra(site) {
    const first = this.data.firstSpectrum(site);
    if (has(first)) return `None were recorded by step ${whole(this.step)}; the first are of step ${whole(first)}.`;
    const { shown } = this.data;
    if (shown.ended && this.steps.length) return shown.state === "finished" ? "This comparison recorded no singular values." : `They are recorded at the last evaluation, which was not reached: ${shown.state}.`;
    const end = Math.max(0, ...shown.runs.map((run) => run.total_steps ?? 0));
    return this.waiting(`The first come with the last evaluation${end ? `, at step ${whole(end)}` : ""}, or with each best one where the best is kept.`);
  }

  rawSpectra(site) {
    const runs = this.data.shown.runs.filter((run) => !this.hidden.has(run.label));
    return runs.flatMap((run) => (this.data.spectra.get(site)?.runs.get(run.run) ?? []).flatMap(({ step, values }) => values.map((value, place) => ({ method: run.label, seed: run.seed, run: run.run, site: site || "mean", step, place: place + 1, value }))));
  }

  picture() {
    if (!window.Plotly || !this.tables.size) return;
    const labels = [...this.tables.keys()];
    const title = { most: this.data.most(labels, this.measure), text: `${this.measure} rank, step ${whole(this.step)}` };
    const drawn = heatmaps([...this.tables], (label, site) => this.data.rank(label, site, this.measure, this.step), title);
    savePicture({ ...drawn, ground: palette().panel, file: `ranklab-${this.data.shown.id}-rank-by-layer`, margin: { l: 64, r: 24, t: 40, b: 50 } });
  }

  save() {
    const rows = this.looks.flatMap((look) => [...this.data.methods.get(look.label).runs].flatMap(([run, entries]) => entries.flatMap(({ step, ...measures }) => [...this.data.methods.get(look.label).sites.values()].map(({ site, layer, role }) => ({ method: look.label, run, step, site, layer, role, ...Object.fromEntries(Object.entries(measures).map(([name, values]) => [name, values.get(site)])) })))));
    save(csv(rows), `ranklab-${this.data.shown.id}-rank-by-layer.csv`);
  }
}

/** The tables as Plotly heatmaps, two beside each other. tables: [label, {layers, kinds, at}]; rank(label, site). */
function heatmaps(tables, rank, title) {
  const { axis, ...rest } = paper(), rows = Math.ceil(tables.length / 2), columns = Math.min(2, tables.length);
  const layout = { ...rest, grid: { rows, columns, pattern: "independent", xgap: 0.2, ygap: 0.35 }, annotations: [], coloraxis: { colorscale: SCALE.map((part, place) => [place / (SCALE.length - 1), `rgb(${part.join()})`]), cmin: 0, cmax: title.most, colorbar: { title: { text: title.text, side: "right" } } } };
  const data = tables.map(([label, { layers, kinds, named, at }], place) => {
    const number = place ? place + 1 : "", z = kinds.map(([kind]) => layers.map((layer) => (at(kind, layer) ? rank(label, at(kind, layer).site) : null)));
    layout[`xaxis${number}`] = { ...axis, type: "category", title: { text: "layer", font: { size: 11 } } };
    layout[`yaxis${number}`] = { ...axis, type: "category", autorange: "reversed" };
    layout.annotations.push({ text: escaped(label), xref: `x${number} domain`, yref: `y${number} domain`, x: 0, y: 1.02, xanchor: "left", yanchor: "bottom", showarrow: false });
    return { type: "heatmap", x: layers.map(String), y: kinds.map(named), z, text: z.map((line) => line.map((value) => (has(value) ? fixed(value, Number.isInteger(value) ? 0 : 1) : "–"))), texttemplate: "%{text}", coloraxis: "coloraxis", xaxis: `x${number}`, yaxis: `y${number}`, xgap: 1, ygap: 1 };
  });
  return { data, layout, height: 60 + rows * 260 };
}

/** A method's table: a row for each kind of map, a column for each layer. */
function build(look, sites, onChoose) {
  const kind = ({ site, layer }) => site.split(".").filter((part) => part !== String(layer)).join(".");
  const layers = [...new Set(sites.map((site) => site.layer))].sort((a, b) => a - b);
  const kinds = [...new Map(sites.map((site) => [kind(site), site.role]))];
  const alone = (role) => kinds.filter(([, other]) => other === role).length === 1;
  const cells = new Map(sites.map((site) => [site.site, h("td", { onclick: () => onChoose(site.site) })]));
  const at = (row, layer) => sites.find((site) => kind(site) === row && site.layer === layer);
  const head = h("tr", {}, h("th", { scope: "col" }, "layer"), layers.map((layer) => h("th", { scope: "col" }, String(layer))));
  const named = ([row, role]) => (alone(role) ? role : row);
  const rows = kinds.map(([row, role]) => h("tr", {}, h("th", { scope: "row" }, named([row, role])), layers.map((layer) => (at(row, layer) ? cells.get(at(row, layer).site) : h("td", {}, "")))));
  const caption = h("caption", {}, h("span.rl-cellname", {}, swatch(look), h("span", {}, breakable(look.label))));
  const box = h("div.rl-scroll", { tabindex: "0", role: "region", "aria-label": `Rank by layer of ${look.label}` }, h("table.rl-heat-table", {}, caption, h("thead", {}, head), h("tbody", {}, rows)));
  return { box, cells, layers, kinds, named, at };
}
