// What the runs have reported so far. Answers of the server are appended; curves are made from here.

import { has, mean } from "./util.js";

const DRAWN = 400; // points of a line; more than a chart has pixels for is not drawn

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

export class Points {
  constructor() {
    this.runs = new Map();
  }

  merge(packed) {
    for (const [run, parts] of Object.entries(packed)) {
      if (!this.runs.has(run)) this.runs.set(run, { step: {}, eval: {}, rank: {} });
      for (const part of ["step", "eval", "rank"]) append(this.runs.get(run)[part], parts[part]);
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

  /** Mean and range over the runs at every step that one of them has reached. */
  curve(runs, part, column, axis, smoothing = 0) {
    const known = runs.map((run) => this.runs.get(run)).filter((run) => run && run[part].step?.length);
    const longest = Math.max(0, ...known.map((run) => run[part].step.at(-1)));
    const count = Math.max(0, ...known.map((run) => run[part].step.length));
    const stride = count > DRAWN ? Math.ceil(longest / DRAWN) : 1;
    const buckets = new Map();
    for (const run of known) this.fill(buckets, run, part, column, axis, smoothing, stride);
    const keys = [...buckets.keys()].sort((a, b) => a - b);
    const groups = keys.map((key) => [...buckets.get(key).values()]);
    const values = groups.map((group) => group.map((point) => point[1]));
    return {
      x: groups.map((group) => mean(group.map((point) => point[0]))),
      y: values.map(mean),
      low: values.map((group) => Math.min(...group)),
      high: values.map((group) => Math.max(...group)),
      n: values.map((group) => group.length),
    };
  }

  fill(buckets, run, part, column, axis, smoothing, stride) {
    const steps = run[part].step;
    const values = smoothing ? smoothed(run[part][column], smoothing) : run[part][column];
    for (let index = 0; index < steps.length; index++) {
      const x = this.position(run, steps[index], axis);
      if (!has(values[index]) || !has(x)) continue;
      const key = Math.ceil(steps[index] / stride);
      if (!buckets.has(key)) buckets.set(key, new Map());
      buckets.get(key).set(run, [x, values[index]]);
    }
  }

  /** Where a step lies on an axis: itself, or what the last step at or before it had used. */
  position(run, step, axis) {
    if (axis === "step") return step;
    const steps = run.step.step || [];
    const index = firstFrom(steps, step + 1) - 1;
    return index >= 0 ? run.step[axis][index] : 0;
  }
}
