// How a lesson gets its result: the playground's answers, fits as they come, and a comparison that is trained now.

import { lines } from "./playground_fit.js";
import { get, post, reached, Refusal } from "./util.js";

const LOOK = 700; // milliseconds between looks at a comparison
const ENDED = { failed: "The comparison failed", cancelled: "The comparison was stopped", interrupted: "The server was stopped in between" };

export const sketch = (values, signal) => post("playground/sketch", values, signal);
export const draws = (values, signal) => post("playground/draws", values, signal);

/** What every method of a fit has captured after the last step, with its description. */
export async function fit(body, signal, progress) {
  const request = { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body), signal };
  const response = await reached(fetch("ranklab/playground/fit", request));
  let described = null, captured = [];
  for await (const line of lines(response)) {
    if (line.errors) throw new Refusal(line.errors);
    if (line.pairs) described = line;
    else {
      captured = line.captured;
      progress(line.step / described.steps);
    }
  }
  return described.pairs.map((pair, place) => ({ ...pair, captured: captured[place] ?? NaN }));
}

/** Start a comparison and wait for its end. */
export async function train(form, signal, progress) {
  const { id } = await post("start", form, signal);
  for (;;) {
    const view = await get("view", { id, after: Number.MAX_SAFE_INTEGER });
    signal.throwIfAborted();
    progress(view.progress, view.queue_place && view.state === "queued" ? `Waiting in the queue, place ${view.queue_place}.` : "");
    if (view.state === "finished") return finished(id);
    if (view.ended) throw new Refusal([{ message: `${ENDED[view.state] ?? `The comparison is ${view.state}`}${view.message ? `: ${view.message}` : "."}` }]);
    await new Promise((resolve) => setTimeout(resolve, LOOK));
  }
}

/** A finished comparison's table; "example" is the one that is shipped. */
export async function finished(id) {
  const { table, environment, shipped, spec, metric } = await get("view", { id });
  return { id, table, environment, shipped, spec, metric };
}
