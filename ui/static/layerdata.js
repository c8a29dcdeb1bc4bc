// Ranks and singular values layer by layer as far as the page has asked for them; answers are appended.

import { get, has, mean } from "./util.js";

const last = (entries, step) => entries.findLast((entry) => entry.step <= step);

/** Append entries {step, ...}; a resumed run that repeats a step replaces what came from there on. */
function append(entries, added) {
  if (!added.length) return entries;
  return [...entries.filter((entry) => entry.step < added[0].step), ...added];
}

export class LayerData {
  /** onNews(): something has come. */
  constructor(shown, onNews) {
    this.shown = shown;
    this.onNews = onNews;
    this.methods = new Map(); // label -> {seq, asked, sites: Map(site -> {layer, role}), runs: Map(run -> [{step, by measure: Map}])}
    this.spectra = new Map(); // site or "" -> {seq, asked, runs: Map(run -> [{step, values}])}
    this.version = 0;
  }

  /** Ask for what is new of a part, once for each of its versions. */
  async ask(part, path, query, take) {
    const wanted = this.shown.points.version("rank");
    if (part.asking || part.asked === wanted) return;
    part.asking = true;
    try {
      const answer = await get(path, { id: this.shown.id, after: part.seq, ...query });
      take(answer);
      [part.seq, part.asked] = [answer.seq, wanted];
      this.version++;
    } catch {
      part.failed = true; // the next poll asks again
    } finally {
      part.asking = false;
    }
    this.onNews();
  }

  load(label) {
    if (!this.methods.has(label)) this.methods.set(label, { seq: 0, asked: -1, sites: new Map(), runs: new Map() });
    const part = this.methods.get(label);
    this.ask(part, "layers", { label }, ({ sites, runs }) => {
      for (const site of sites) part.sites.set(site.site, site);
      for (const [run, { step, ...measures }] of Object.entries(runs)) {
        const entries = step.map((at, place) => ({ step: at, ...Object.fromEntries(Object.entries(measures).map(([name, rows]) => [name, new Map(sites.map(({ site }, index) => [site, rows[place][index]]))])) }));
        part.runs.set(run, append(part.runs.get(run) ?? [], entries));
      }
    });
    return part;
  }

  loadSpectra(site) {
    if (!this.spectra.has(site)) this.spectra.set(site, { seq: 0, asked: -1, runs: new Map() });
    const part = this.spectra.get(site);
    this.ask(part, "spectra", site ? { site } : {}, ({ runs }) => {
      for (const [run, { step, values }] of Object.entries(runs)) part.runs.set(run, append(part.runs.get(run) ?? [], step.map((at, place) => ({ step: at, values: values[place] }))));
    });
    return part;
  }

  /** Every step at which a rank of one of the methods was measured. */
  steps(labels) {
    const all = labels.flatMap((label) => [...(this.methods.get(label)?.runs.values() ?? [])].flatMap((entries) => entries.map((entry) => entry.step)));
    return [...new Set(all)].sort((a, b) => a - b);
  }

  /** A site's rank at a step: of each run its last measurement until then, the mean over runs. */
  rank(label, site, measure, step) {
    const runs = [...this.methods.get(label).runs.values()];
    return mean(runs.map((entries) => last(entries, step)?.[measure].get(site)).filter(has)) ?? null;
  }

  most(labels, measure) {
    let most = 0;
    for (const label of labels) for (const entries of this.methods.get(label)?.runs.values() ?? []) for (const entry of entries) for (const value of entry[measure].values()) if (value > most) most = value;
    return most;
  }

  /** A method's singular values at a step: {x, y, low, high, n}, of each run the last that were recorded until then. */
  spectrum(label, site, step) {
    const runs = this.shown.runs.filter((run) => run.label === label).map((run) => this.spectra.get(site)?.runs.get(run.run) ?? []);
    const found = runs.map((entries) => last(entries, step)?.values).filter(Boolean);
    const longest = Math.max(0, ...found.map((values) => values.length));
    const at = Array.from({ length: longest }, (_, place) => found.map((values) => values[place]).filter((value) => value > 0));
    const kept = at.map((values, place) => ({ x: place + 1, values })).filter(({ values }) => values.length);
    return {
      x: kept.map(({ x }) => x),
      y: kept.map(({ values }) => mean(values)),
      low: kept.map(({ values }) => Math.min(...values)),
      high: kept.map(({ values }) => Math.max(...values)),
      n: kept.map(({ values }) => values.length),
    };
  }

  /** The first step that has singular values, of any method. */
  firstSpectrum(site) {
    const steps = [...(this.spectra.get(site)?.runs.values() ?? [])].flatMap((entries) => entries.map((entry) => entry.step));
    return steps.length ? Math.min(...steps) : null;
  }
}
