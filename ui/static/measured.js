// What this project measured itself: the claim, and a table for each group of methods and task. Loaded when opened.

import { what } from "./define.js";
import { breakable, fixed, h, has, signed, whole, words } from "./util.js";

const method = (name) => h("span.rl-cellname", {}, h("span", {}, breakable(name)));

function difference(versus) {
  if (!versus) return "reference";
  if (!has(versus.mean_difference)) return "–";
  const [low, high] = versus.ci95 ?? [];
  return signed(versus.mean_difference) + (versus.ci95 ? ` [${signed(low)}, ${signed(high)}]` : " (one seed: no interval)");
}

const COLUMNS = [
  ["method", (row) => [method(row.label), row.label === row.method ? null : h("div.rl-sub", {}, h("code", {}, breakable(row.method)))], "text"],
  ["mean ± std", (row) => (has(row.std) ? `${fixed(row.mean)} ± ${fixed(row.std)}` : fixed(row.mean)), "", "measured"],
  ["n", (row) => (row.n === row.runs ? String(row.n) : `${row.n} of ${row.runs}`), "", "n"],
  ["difference", (row) => difference(row.versus), "", "difference"],
  ["trainable", (row) => whole(row.trainable), "", "trainable"],
  ["rank", (row) => fixed(row.rank_numerical_mean, 1), "", "numerical_rank"],
  ["eff. rank", (row) => fixed(row.rank_effective_mean, 2), "", "effective_rank"],
];

const CLAIM = [
  ["task", (row) => row.task, "text"],
  ["method", (row) => method(row.method), "text"],
  ["against", (row) => method(row.reference), "text"],
  ["n", (row) => String(row.n), "", "n"],
  ["difference [95 %]", difference, "", "difference"],
  ["the interval is", (row) => row.side],
];

function table(label, columns, rows) {
  const head = columns.map(([name, , kind, key]) => h("th", { scope: "col", class: kind || null }, name, key ? what(key) : null));
  const cells = (row) => columns.map(([, show, kind], place) => h(place ? "td" : "th", { class: kind || null, scope: place ? null : "row" }, show(row)));
  const body = rows.map((row) => h("tr", {}, cells(row)));
  return h("div.rl-scroll", { tabindex: "0", role: "region", "aria-label": label }, h("table.rl-table", {}, h("thead", {}, h("tr", {}, head)), h("tbody", {}, body)));
}

function taskTable(group, { task, model, metric, reference, rows }) {
  const named = COLUMNS.map(([name, ...rest]) => [{ "mean ± std": `${words(metric)}, mean ± std`, difference: `difference to ${reference} [95 %]` }[name] ?? name, ...rest]);
  return h("div", {}, h("h4", {}, `${task} on ${model}`), table(`${group}: ${task}`, named, rows));
}

/** A group's tables; the first group, the main comparison, is open. */
function section({ title, tables }, place) {
  const parts = tables.map((entry) => taskTable(title, entry));
  return h("details.rl-group", { open: place === 0 }, h("summary", {}, title), h("div", {}, parts));
}

function claimed({ title, sentences, rows }) {
  if (!rows.length) return null;
  return h("div.rl-claim", {}, h("h3", {}, title), sentences.map((sentence) => h("p", {}, sentence)), table(title, CLAIM, rows));
}

export function drawMeasured(box, found) {
  if (found.missing) {
    box.replaceChildren(h("p.rl-sub", {}, found.missing));
    return;
  }
  const origin = h("p.rl-sub", {}, `${found.what}. The figures are in `, h("code", {}, found.file), "; the command that makes it:");
  const commands = h("pre.rl-command", { tabindex: "0", "aria-label": "Commands" }, found.commands.join("\n"));
  box.replaceChildren(...[h("p.rl-mark", {}, found.measured), claimed(found.claim), ...found.groups.map(section), origin, commands].filter(has));
}
