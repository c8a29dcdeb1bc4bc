// The tables of the Papers tab. The first cell of every row is its mark.

import { keyOf as definitionOf, what } from "./define.js";
import { breakable, fixed, h, has, whole, words } from "./util.js";

const ABOUT = { trainable_percent: "trainable %", flops_vs_lora: "FLOPs vs LoRA", trainable_params_millions: "trainable, M", inference_params_millions: "at inference, M", bit_level_storage_percent: "storage % (bits)", params_vs_lora_r8: "parameters vs LoRA r=8", rank: "r", d: "d", bottleneck: "bottleneck", orthogonality_loss: "orthogonality loss", rank_of_delta_w: "rank of ΔW" };
const ABOUT_WHAT = { trainable_percent: "trainable_percent", flops_vs_lora: "vs_lora", trainable_params_millions: "trainable", bit_level_storage_percent: "bit_level", rank_of_delta_w: "numerical_rank" };
const aboutName = (name) => ABOUT[name] ?? name.replaceAll("_", " ");
const figure = (value) => String(value).replace("-", "−");
const spread = (row, digits = 0) => fixed(row.score, Math.max(digits, decimals(row.score))) + (has(row.std) ? ` ± ${figure(row.std)}` : "");
const decimals = (value) => String(value).split(".")[1]?.length ?? 0;

const quotedMark = (row, { titles }) => h("span.pp-mark.pp-quoted", {}, h("span", { "aria-hidden": "true" }, "“"), ` quoted: ${titles[row.paper]}, Table ${row.table}`);
const measuredMark = (row) => h("span.pp-mark.pp-measured", {}, h("span", { "aria-hidden": "true" }, "●"), ` ${row.mark}`);
const ours = (method) => (method ? h("code", {}, breakable(method)) : h("span.rl-sub", {}, "not a method of ours"));

// name, value to sort by, what is shown (row, context), class, definition
export const QUOTED = [
  ["source", (row) => `${row.paper} ${row.table.padStart(3)}`, quotedMark, "text"],
  ["as printed", (row) => row.printed.toLowerCase(), (row) => [row.printed, h("div.rl-sub", {}, ours(row.method))], "text pp-wide"],
  ["quoted figure", (row) => row.score, (row) => h("strong", {}, spread(row)), "", "quoted"],
  ["task", (row) => row.task, (row) => [row.task, h("div.rl-sub", {}, words(row.metric))], "text"],
  ["model", (row) => row.model, (row) => row.model, "text"],
  ["the table says", null, (row) => Object.entries(row.about).map(([name, value]) => h("div.rl-sub", {}, `${aboutName(name)} ${figure(value)}`)), "text"],
  ["measure it here", null, (row, context) => links(row, context), "text pp-here"],
];

export const MEASURED = [
  ["source", (row) => row.mark, measuredMark, "text pp-source"],
  ["method", (row) => row.method, (row) => [h("code", {}, breakable(row.method)), row.label === row.method ? null : h("div.rl-sub", {}, row.label)], "text pp-wide"],
  ["measured figure", (row) => row.score, (row) => h("strong", {}, has(row.std) ? `${fixed(row.score)} ± ${fixed(row.std)}` : fixed(row.score)), "", "measured"],
  ["task", (row) => row.task, (row) => [row.task, h("div.rl-sub", {}, words(row.metric))], "text"],
  ["n", (row) => row.n, (row) => String(row.n), "", "n"],
  ["steps", (row) => row.steps, (row) => whole(row.steps), "", "steps"],
  ["trainable", (row) => row.trainable, (row) => whole(row.trainable), "", "trainable"],
];

/** Links that fill the Compare form, and how the result would differ from what is printed. */
function links(row, { here }) {
  if (!row.presets.length) return h("span.rl-sub", {}, whyNoPreset(row));
  const one = ({ name, options }) => {
    const text = Object.entries(options).map(([option, value]) => `${option}=${value}`).join(",");
    const address = new URLSearchParams({ tab: "compare", preset: `${row.task}|${name}`, ...(text ? { with: text } : {}) });
    return h("a.pp-preset", { href: `#${address}`, "aria-label": `Fill the Compare form: ${name}${text ? ` with ${text}` : ""} on ${row.task}` }, name.split("/").slice(2).join("/") + (text ? `, ${text}` : ""));
  };
  return [h("div.pp-links", {}, row.presets.map(one)), h("div.rl-sub", {}, differs(row, here))];
}

function differs(row, here) {
  if (!here) return "Looking what is on this machine.";
  const missing = [here.models[row.model] ? null : `model ${row.model}`, here.tasks[row.task] ? null : "the task's rows"].filter(Boolean);
  if (!missing.length) return "Model and rows are on this machine.";
  return `Not on this machine: ${missing.join(" and ")}.`;
}

function whyNoPreset(row) {
  if (!row.method) return "No method of ours.";
  if (row.task.startsWith("average")) return "An average: its tasks have presets of their own.";
  return "No preset of this paper's is kept for it.";
}

/** The rows in the order that is asked for; without one as they are kept. */
export function listOf(rows, columns, { column, up }) {
  const value = columns.find(([name]) => name === column)?.[1];
  if (!value) return rows;
  return [...rows].sort((a, b) => compare(value(a), value(b), up));
}

/** What is missing comes last in both directions. */
function compare(a, b, up) {
  if (!has(a) || !has(b)) return has(a) ? -1 : has(b) ? 1 : 0;
  const order = typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), "en", { numeric: true });
  return up ? order : -order;
}

function sorter(name, kind, sorted, redraw, label = name, more = null) {
  const active = sorted.column === name;
  const turn = () => {
    Object.assign(sorted, { column: name, up: active ? !sorted.up : kind.includes("text") });
    redraw();
  };
  const button = h("button", { type: "button", "data-sort": name, title: "sort", onclick: turn }, label, active ? (sorted.up ? " ↑" : " ↓") : "");
  return h("th", { scope: "col", class: kind || null, "aria-sort": active ? (sorted.up ? "ascending" : "descending") : null }, button, more);
}

const scrolled = (label, table) => h("div.rl-scroll.pp-scroll", { tabindex: "0", role: "region", "aria-label": label }, table);

export function figureTable(label, rows, columns, sorted, redraw, context) {
  const head = columns.map(([name, value, , kind = "", key]) => (value ? sorter(name, kind, sorted, redraw, name, key ? what(key) : null) : h("th", { scope: "col", class: kind || null }, h("span.pp-plain", {}, name))));
  const cells = (row) => columns.map(([, , show, kind], place) => h(place === 1 ? "th" : "td", { class: kind || null, scope: place === 1 ? "row" : null }, show(row, context)));
  return scrolled(label, h("table.rl-table.pp-table", {}, h("thead", {}, h("tr", {}, head)), h("tbody", {}, rows.map((row) => h("tr", {}, cells(row))))));
}

/** One printed table: a row for each method (and what the table says of it), a column for each task and metric. */
export function printedTable(rows, titles, sorted, redraw) {
  const columns = [...new Map(rows.map((row) => [`${row.task} ${row.metric}`, row])).entries()];
  const facts = [...new Set(rows.flatMap((row) => Object.keys(row.about)))];
  const keyOf = (row) => JSON.stringify([row.printed, row.method, row.model, row.about]);
  const groups = new Map();
  for (const row of rows) {
    if (!groups.has(keyOf(row))) groups.set(keyOf(row), { ...row, cells: new Map() });
    groups.get(keyOf(row)).cells.set(`${row.task} ${row.metric}`, row);
  }
  let lines = [...groups.values()];
  const digits = new Map(columns.map(([key]) => [key, Math.max(...rows.filter((row) => `${row.task} ${row.metric}` === key).map((row) => decimals(row.score)))]));
  const models = new Set(rows.map((row) => row.model)).size > 1;
  const valueOf = (line) => (sorted.column === "as printed" ? line.printed : sorted.column === "model" ? line.model : line.about[sorted.column] ?? line.cells.get(sorted.column)?.score);
  if (["as printed", "model", ...facts, ...columns.map(([key]) => key)].includes(sorted.column)) lines = lines.sort((a, b) => compare(valueOf(a), valueOf(b), sorted.up));
  const head = [
    h("th.text", { scope: "col" }, h("span.pp-plain", {}, "source")),
    sorter("as printed", "text pp-wide", sorted, redraw), models ? sorter("model", "text", sorted, redraw) : null,
    ...facts.map((name) => sorter(name, "", sorted, redraw, aboutName(name), ABOUT_WHAT[name] ? what(ABOUT_WHAT[name]) : null)),
    ...columns.map(([key, row]) => sorter(key, "", sorted, redraw, row.task.split("/").at(-1).replaceAll("_", " "), [what(definitionOf(row.metric)), h("div.rl-sub.pp-metric", {}, words(row.metric))])),
  ];
  const body = lines.map((line) => h("tr", {},
    h("td.text", {}, quotedMark(line, { titles })),
    h("th.text.pp-wide", { scope: "row" }, line.printed, h("div.rl-sub", {}, ours(line.method))), models ? h("td.text", {}, line.model) : null,
    facts.map((name) => h("td", {}, has(line.about[name]) ? figure(line.about[name]) : "–")),
    columns.map(([key]) => h("td", {}, line.cells.has(key) ? spread(line.cells.get(key), digits.get(key)) : "–"))));
  const [{ paper, table }] = rows;
  return scrolled(`${titles[paper]}, Table ${table}, quoted`, h("table.rl-table.pp-table", {}, h("thead", {}, h("tr", {}, head)), h("tbody", {}, body)));
}
