// A method's answer as a card: classes with their confidence as bars, numbers on their scale, texts as written.

import { what } from "./define.js";
import { breakable, fixed, h, has, swatch } from "./util.js";

const MOST_BARS = 10;
const AROUND = 70; // characters of the context on either side of an answer
const REACH = 3; // deviations from the mean of the training targets that a scale shows

export function card(run, found, about, asked) {
  const parts = !found ? [h("p.rl-sub", {}, "no answer yet")] : found.error ? [h("p.rl-problem", {}, found.error)] : answer(found, about, asked);
  const head = h("div.rl-card-top", {}, h("span.rl-cellname", {}, swatch(run.look), h("span", {}, breakable(run.label))));
  return h("article.rl-card", { style: `--rl-colour:${run.look.colour}`, "data-answer-of": run.run, "aria-label": `Answer of ${run.label}` }, head, parts);
}

function answer(found, about, asked) {
  if (about.problem === "classification") return [h("p.rl-answer", {}, found.answer), shares(found.confidence, found.answer)];
  if (about.problem === "regression") return numbers([found.answer].flat(), found, about);
  if (!found.answer) return [h("p.rl-answer.rl-sub", {}, about.problem === "span" ? "says that the context holds no answer" : "wrote nothing")];
  const text = h(`p.rl-answer${about.problem === "generation" ? ".rl-written" : ""}`, {}, found.answer);
  return [text, about.problem === "span" ? around(asked?.context ?? "", found) : null];
}

function shares(confidence, chosen) {
  const few = confidence.length <= MOST_BARS;
  const shown = few ? confidence : [...confidence].sort((one, other) => other[1] - one[1]).slice(0, MOST_BARS / 2);
  const rows = shown.map(([label, share]) => {
    const text = percent(share);
    const line = h("span.rl-barline", { "aria-hidden": "true" }, h("i", { style: `width:${100 * share}%` }));
    return h(`div.rl-barrow${label === chosen ? ".rl-top" : ""}`, {}, h("span.rl-barname", { title: label }, label), line, h("span.rl-barvalue", {}, text));
  });
  const rest = few ? null : h("p.rl-sub", {}, `and ${confidence.length - shown.length} more classes`);
  const width = Math.min(14, Math.max(...shown.map(([label]) => label.length)) + 1);
  return [h("p.rl-sub", {}, what("confidence", "confidence")), h("div.rl-shares", { role: "group", "aria-label": "Confidence", style: `--rl-name:${width}ch` }, rows, rest)];
}

export const percent = (share) => `${(100 * share).toFixed(1)} %`;

function numbers(values, found, about) {
  const { mean, deviation } = about;
  const rows = values.map((value, place) => {
    const text = h("p.rl-answer", {}, values.length > 1 ? `${place + 1}: ${fixed(value)}` : fixed(value));
    if (!mean || !deviation || found.standardised) return text;
    const away = (value - mean[place]) / deviation[place];
    const left = 50 + (50 * Math.max(-REACH, Math.min(REACH, away))) / REACH;
    const end = (times) => h("span", {}, fixed(mean[place] + times * deviation[place], 1));
    const ends = h("div.rl-ends.rl-sub", { "aria-hidden": "true" }, end(-REACH), h("span", {}, `${fixed(mean[place], 1)}: mean of the training rows`), end(REACH));
    return [text, h("div.rl-scale", { role: "img", "aria-label": `${fixed(away, 2)} deviations from the mean of the training rows` }, h("i", { style: `left:${left}%` })), ends];
  });
  const note = found.standardised ? h("p.rl-sub", {}, "in deviations from a mean that is not known here") : null;
  return [h("p.rl-sub", {}, what("predicted", "predicted number")), rows, note];
}

function around(context, found) {
  const at = context.indexOf(found.answer);
  if (at < 0) return null;
  const end = at + found.answer.length;
  const before = (at > AROUND ? "… " : "") + context.slice(Math.max(0, at - AROUND), at);
  const after = context.slice(end, end + AROUND) + (end + AROUND < context.length ? " …" : "");
  const score = has(found.score) ? h("p.rl-sub", {}, what("span_score", `score ${fixed(found.score, 2)}`), ": logits of its start and end, summed") : null;
  return [h("p.rl-around", {}, before, h("mark", {}, found.answer), after), score];
}
