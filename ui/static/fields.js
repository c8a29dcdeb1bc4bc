// One labelled input per field of a config, with its message below. Everything stays text until the server checks it.

import { h } from "./util.js";

let made = 0;

/** field: {name, type, choices, default, help, min, max, most}; most: what a public page takes. onInput(text) is called at every change. */
export function fieldInput(path, field, value, onInput, label = field.name.replaceAll("_", " ")) {
  const id = `rl-field-${++made}`;
  const input = field.choices || field.type === "bool" ? chooser(field, value) : typing(field, value);
  input.id = id;
  input.setAttribute("aria-describedby", `${id}-help ${id}-error`);
  input.addEventListener("input", () => {
    setError(box, "");
    onInput(input.value);
  });
  const help = helpText(field);
  const box = h("div.rl-field", { "data-field": path, title: help },
    h("label", { for: id }, label, h("span.rl-upto", {}, atMost(field.most))),
    input,
    h("span.rl-sr", { id: `${id}-help` }, help),
    h("p.rl-error", { id: `${id}-error`, "aria-live": "polite" }));
  return box;
}

/** What stands behind a label whose field is capped: a number, or a text with one in it. */
export function atMost(most) {
  return most ? ` up to ${typeof most === "number" ? most.toLocaleString("en") : most}` : "";
}

function helpText(field) {
  const bounds = [];
  if (field.min !== null && field.min !== undefined) bounds.push(`${field.exclusive_min ? "above" : "from"} ${field.min}`);
  if (field.max !== null && field.max !== undefined) bounds.push(`${field.exclusive_max ? "below" : "to"} ${field.max}`);
  if (field.most) bounds.push(`${atMost(field.most).trim()} on this public page`);
  return [field.help, bounds.join(" ")].filter(Boolean).join("; ");
}

function typing(field, value) {
  const numeric = field.type === "int" || field.type === "float";
  return h("input", { type: "text", inputmode: numeric ? "decimal" : "text", autocomplete: "off", spellcheck: "false", maxlength: "500", placeholder: field.default || (field.nullable ? "default" : ""), value: value ?? "" });
}

function chooser(field, value) {
  const choices = field.choices || ["true", "false"];
  const known = choices.map(String);
  const fallback = field.fallback ?? (field.default ? `default (${field.default})` : "default");
  const options = known.filter((choice) => choice !== "null").map((choice) => h("option", { value: choice }, choice));
  if (value && !known.includes(String(value))) options.unshift(h("option", { value }, String(value)));
  const select = h("select", {}, h("option", { value: "" }, fallback), options);
  select.value = value ?? "";
  return select;
}

export function setError(box, message) {
  box.querySelector(".rl-error").textContent = message;
  box.classList.toggle("rl-bad", Boolean(message));
  const input = box.querySelector("input, select");
  if (message) input?.setAttribute("aria-invalid", "true");
  else input?.removeAttribute("aria-invalid");
}
