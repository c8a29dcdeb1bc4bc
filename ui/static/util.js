// Small helpers: elements, requests, figures for reading.

/** An element: h("p.note", {title: "..."}, "text", child). Text is always set as text, never as markup. */
export function h(kind, attributes = {}, ...children) {
  const [tag, ...classes] = kind.split(".");
  const element = document.createElement(tag);
  if (classes.length) element.className = classes.join(" ");
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "value") element.value = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
  return element;
}

export class Refusal extends Error {
  constructor(errors) {
    super(errors.map((error) => error.message).join(" "));
    this.errors = errors;
  }
}

/** No answer came, or none that can be read. */
export class Offline extends Error {}

/** What is promised of a request; where it breaks, that the server is not there. A request that was given up stays that. */
export const reached = (promise) => promise.catch((error) => {
  throw error.name === "AbortError" ? error : new Offline(error.message);
});

/** Whether an error is one to tell the visitor: a refusal, or no answer. Any other is a mistake of ours. */
export const isAnswer = (error) => error instanceof Refusal || error instanceof Offline;

export async function read(response) {
  const data = await reached(response.json());
  if (data?.errors) throw new Refusal(data.errors);
  if (!response.ok) throw new Refusal([{ field: "", message: data?.detail || "The server refused." }]);
  return data;
}

export async function get(path, query = {}) {
  const text = new URLSearchParams(query).toString();
  return read(await reached(fetch(`ranklab/${path}${text ? "?" + text : ""}`, { cache: "no-store" })));
}

export async function post(path, body, signal) {
  const request = { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body), signal };
  return read(await reached(fetch(`ranklab/${path}`, request)));
}

/** Fill the form of the Compare tab, whether that tab was opened before or not. */
export function fillForm(form) {
  try {
    sessionStorage.setItem("ranklab-form", JSON.stringify(form));
  } catch { /* the form is told all the same */ }
  document.dispatchEvent(new CustomEvent("ranklab-form", { detail: form }));
}

/** Put a text on the clipboard; the button says so for a moment. Where the browser has none (plain http), in the old way. */
export async function copy(text, button) {
  const done = navigator.clipboard ? await navigator.clipboard.writeText(text).then(() => true, () => false) : copyByHand(text);
  const { textContent: name } = button;
  button.textContent = done ? "Copied" : "Select and copy it";
  setTimeout(() => (button.textContent = name), 1500);
}

function copyByHand(text) {
  const area = h("textarea", { value: text, style: "position:fixed;opacity:0" });
  document.body.append(area);
  area.select();
  const done = document.execCommand("copy");
  area.remove();
  return done;
}

const UNITS = ["", "k", "M", "G", "T", "P", "E"];

const NAMES = { bleu: "BLEU", chrf: "chrF", rouge1: "ROUGE-1", rouge2: "ROUGE-2", rouge_l: "ROUGE-L", qa_f1: "F1", r2: "R²", pearson: "Pearson correlation", spearman: "Spearman correlation", pearson_spearman_mean: "Pearson and Spearman, mean" };

export const words = (name) => NAMES[name] ?? name.charAt(0).toUpperCase() + name.slice(1).replaceAll("_", " ");
export const has = (value) => value !== null && value !== undefined;

/** 12345678 as 12.3 M. */
export function short(value) {
  if (!has(value)) return "–";
  let size = Math.abs(value), unit = 0;
  while (size >= 999.5 && unit < UNITS.length - 1) [size, unit] = [size / 1000, unit + 1];
  const digits = unit === 0 && Number.isInteger(value) ? String(size) : size.toPrecision(3);
  return `${value < 0 ? "−" : ""}${digits}${unit ? " " + UNITS[unit] : ""}`;
}

export const whole = (value) => (has(value) ? Math.round(value).toLocaleString("en") : "–");
export const fixed = (value, digits = 3) => (has(value) ? value.toFixed(digits).replace("-", "−") : "–");
export const signed = (value, digits = 3) => (has(value) ? (value >= 0 ? "+" : "") + fixed(value, digits) : "–");

export function bytes(value) {
  if (!has(value)) return "–";
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) [value, unit] = [value / 1024, unit + 1];
  return `${unit ? value.toPrecision(3) : value} ${units[unit]}`;
}

export function duration(seconds) {
  if (!has(seconds)) return "–";
  if (seconds < 100) return `${seconds < 10 ? seconds.toFixed(1) : Math.round(seconds)} s`;
  const minutes = Math.round(seconds / 60);
  return minutes < 100 ? `${minutes} min` : `${(minutes / 60).toFixed(1)} h`;
}

export const mean = (values) => (values.length ? values.reduce((sum, value) => sum + value, 0) / values.length : null);

/** A label with places where it may break: after its colon, commas and plus signs. */
export const breakable = (label) => label.split(/(?<=[:,+])/).flatMap((part, place) => (place ? [h("wbr"), part] : [part]));

/** The short line in a method's colour and dash. */
export function swatch(look) {
  const dashes = { solid: "", dash: "6 3", dashdot: "7 3 2 3", longdash: "10 4", dot: "2 3" };
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("class", "rl-swatch");
  svg.setAttribute("viewBox", "0 0 28 10");
  svg.setAttribute("aria-hidden", "true");
  const line = document.createElementNS("http://www.w3.org/2000/svg", "line");
  const attributes = { x1: 1, x2: 27, y1: 5, y2: 5, stroke: look.colour, "stroke-width": 3 };
  for (const [name, value] of Object.entries(attributes)) line.setAttribute(name, value);
  if (dashes[look.dash]) line.setAttribute("stroke-dasharray", dashes[look.dash]);
  svg.append(line);
  return svg;
}
