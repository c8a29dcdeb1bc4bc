// What the runs have reported so far. Answers of the server are appended; curves are made from here.

import { has, mean } from "./util.js";

const EVERYTHING = { points: Infinity, range: null };

function firstFrom(sorted, step) {
  let low = 0, high = sorted.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (sorted[middle] < step) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** Append columns; a resumed run that repeats a step replaces what came from there on. */
function append(target, columns) {
  if (!columns.step.length) return;
  const cut = target.step ? firstFrom(target.step, columns.step[0]) : 0;
  for (const [name, values] of Object.entries(columns)) {
    target[name] = target[name] || [];
    target[name].length = cut;
    for (const value of values) target[name].push(value);
  }
}

function smoothed(values, weight) {
  let total = 0, share = 0;
  return values.map((value) => {
    if (!has(value)) return null;
    total = weight * total + (1 - weight) * value;
    share = weight * share + (1 - weight);
    return total / share;
  });
}

/** The curve of one run: itself, without a range. */
const single = ({ x, y }) => ({ x, y, low: y, high: y, n: x.map(() => 1) });

/** The curve of some runs: mean and range at every place of the grid that one of them has. */
function together(thinned) {
  const buckets = new Map();
  thinned.forEach(({ key, x, y }, run) => key.forEach((at, place) => {
    if (!buckets.has(at)) buckets.set(at, []);
    buckets.get(at)[run] = [x[place], y[place]];
  }));
  const groups = [...buckets].sort(([a], [b]) => a - b).map(([, points]) => points.filter(Boolean));
  const values = groups.map((group) => group.map((point) => point[1]));
  return {
    x: groups.map((group) => mean(group.map((point) => point[0]))),
    y: values.map(mean),
    low: values.map((group) => Math.min(...group)),
    high: values.map((group) => Math.max(...group)),
    n: values.map((group) => group.length),
  };
}

export class Points {
  constructor() {
    this.runs = new Map();
    this.versions = { step: 0, eval: 0, rank: 0 };
  }

  /** A number that rises with every new point of a part, or of what places it on the axis. */
  version(part, axis = "step") {
    return this.versions[part] + (axis === "step" ? 0 : this.versions.step);
  }

  merge(packed) {
    for (const [run, parts] of Object.entries(packed)) {
      if (!this.runs.has(run)) this.runs.set(run, { step: {}, eval: {}, rank: {} });
      for (const part of ["step", "eval", "rank"]) {
        append(this.runs.get(run)[part], parts[part]);
        this.versions[part] += parts[part].step.length;
      }
    }
  }

  /** The last value of a column of a run, or null. */
  last(run, part, column) {
    const values = this.runs.get(run)?.[part][column] || [];
    for (let index = values.length - 1; index >= 0; index--) if (has(values[index])) return values[index];
    return null;
  }

  lastMean(runs, part, column) {
    return mean(runs.map((run) => this.last(run, part, column)).filter(has));
  }

  /** The mean at the last step that any of the runs has reported: where their curve ends. */
  end(runs, part, column) {
    const known = runs.map((run) => this.runs.get(run)?.[part]).filter((columns) => columns?.step?.length);
    const last = Math.max(...known.map((columns) => columns.step.at(-1)));
    return mean(known.filter((columns) => columns.step.at(-1) === last).map((columns) => columns[column].at(-1)).filter(has));
  }

  /**
   * Mean and range over the runs at every step that one of them has reached.
   * detail: {points, range}: about how many points to give, and the part of the axis where they are wanted finest.
   */
  curve(runs, part, column, axis, smoothing = 0, detail = EVERYTHING) {
    const known = runs.map((run) => this.runs.get(run)).filter((run) => run && run[part].step?.length);
    const keyOf = this.grid(known, part, axis, detail);
    const thinned = known.map((run) => this.thinned(run, part, column, axis, smoothing, keyOf));
    return thinned.length === 1 ? single(thinned[0]) : together(thinned);
  }

  /** From a step to the place it is drawn at: coarse over all of the axis, finer where it is zoomed. */
  grid(known, part, axis, { points, range }) {
    const longest = Math.max(1, ...known.map((run) => run[part].step.at(-1)));
    const count = Math.max(0, ...known.map((run) => run[part].step.length));
    const coarse = count > points ? Math.ceil(longest / points) : 1;
    if (!range || coarse === 1) return (step) => Math.ceil(step / coarse) * coarse;
    const inside = known.flatMap((run) => run[part].step.filter((step) => {
      const x = this.position(run, step, axis);
      return x >= range[0] && x <= range[1];
    }));
    const first = inside.reduce((low, step) => Math.min(low, step), longest), last = inside.reduce((high, step) => Math.max(high, step), 0);
    const fine = Math.max(1, Math.ceil((last - first + 1) / points));
    return (step) => {
      const stride = step >= first && step <= last ? fine : coarse;
      return Math.ceil(step / stride) * stride;
    };
  }

  /** A run's points, the last one of every place of the grid: {key, x, y}, each a column. */
  thinned(run, part, column, axis, smoothing, keyOf) {
    const steps = run[part].step;
    const values = smoothing ? smoothed(run[part][column], smoothing) : run[part][column];
    const places = axis === "step" ? steps : part === "step" ? run.step[axis] : null;
    const found = { key: [], x: [], y: [] };
    let last = -1;
    for (let index = 0; index < steps.length; index++) {
      const x = places ? places[index] : this.position(run, steps[index], axis);
      if (!has(values[index]) || !has(x)) continue;
      const key = keyOf(steps[index]);
      if (last < 0 || found.key[last] !== key) last++;
      found.key[last] = key;
      found.x[last] = x;
      found.y[last] = values[index];
    }
    return found;
  }

  /** Every point of a run as it was recorded: [{step, seconds, flops, value}]. */
  raw(run, part, column) {
    const found = this.runs.get(run);
    const steps = found?.[part].step ?? [];
    return steps.map((step, index) => ({ step, seconds: this.position(found, step, "seconds"), flops: this.position(found, step, "flops"), [column]: found[part][column][index] }));
  }

  /** Where a step lies on an axis: itself, or what the last step at or before it had used. */
  position(run, step, axis) {
    if (axis === "step") return step;
    const steps = run.step.step || [];
    const index = firstFrom(steps, step + 1) - 1;
    return index >= 0 ? run.step[axis][index] : 0;
  }
}
