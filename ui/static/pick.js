// What a model and a task are picked from: lists in groups, and a text for everything else.

import { fieldInput } from "./fields.js";
import { h } from "./util.js";

const OTHER = "other:";
export const OWN = { file: "own:file", hub: "own:hub", path: "own:path" };

function grouped(groups) {
  return groups.filter(([, options]) => options.length).map(([label, options]) => h("optgroup", { label }, options.map(([value, text]) => h("option", { value }, text))));
}

/** A labelled select whose options are groups; onPick(value). */
function picker(name, groups, chosen, onPick) {
  const box = fieldInput(name, { name, choices: [], help: "" }, "", () => {});
  const select = box.querySelector("select");
  select.replaceChildren(...grouped(groups));
  select.value = chosen;
  select.addEventListener("change", () => onPick(select.value));
  return box;
}

/** A text below a select, in the same box, so that a message about the field stands there too. */
function addText(form, box, label, value, placeholder, take) {
  const input = h("input", { type: "text", "aria-label": label, autocomplete: "off", spellcheck: "false", maxlength: "500", placeholder, value });
  input.addEventListener("input", () => {
    take(input.value.trim());
    form.save();
  });
  input.addEventListener("change", () => form.changed()); // not at every letter: a name may be looked up elsewhere
  box.querySelector("select").after(input);
  box.classList.add("rl-wide");
}

export function modelField(form) {
  const { models } = form.catalogue, { state } = form;
  const listed = models.some((model) => model.id === state.model) && !form.otherModel;
  const named = (test) => models.filter(test).map((model) => [model.id, model.id]);
  const groups = [
    ["Comes with RankLab", named((model) => model.origin === "embedded")],
    ["At hand", named((model) => model.origin !== "embedded" && model.at_hand)],
    ["From the Hub", named((model) => model.origin !== "embedded" && !model.at_hand)],
    ["Any other", [[OTHER, form.catalogue.public ? "A Hub id" : "A Hub id or a folder"]]],
  ];
  const box = picker("model", groups, listed ? state.model : OTHER, (value) => {
    form.otherModel = value === OTHER;
    form.pickModel(form.otherModel ? "" : value);
  });
  if (!listed) addText(form, box, "Hub id or folder of the model", state.model, form.catalogue.public ? "owner/name or owner/name@revision" : "owner/name, owner/name@revision or a folder", (text) => (state.model = text));
  return box;
}

/** How a task that no list has is named. */
export function ownKind(form) {
  if (form.own) return form.own;
  const { task } = form.state;
  if (task.startsWith("hub:")) return OWN.hub;
  return !task || /[/\\]uploads[/\\]/.test(task) || form.catalogue.public ? OWN.file : OWN.path;
}

export function taskField(form) {
  const fitting = form.fittingTasks();
  const named = (test) => fitting.filter(test).map((task) => [task.id, task.id]);
  const own = [[OWN.file, "A file"], [OWN.hub, "A Hub data set"]];
  const groups = [
    ["Comes with RankLab", named((task) => task.at_hand === undefined)],
    ["Benchmarks at hand", named((task) => task.at_hand === true)],
    ["Benchmarks from the Hub", named((task) => task.at_hand === false)],
    ["Your own data", form.catalogue.public ? own : [...own, [OWN.path, "A path here"]]],
  ];
  const listed = form.listed() || form.pending();
  if (form.pending()) groups[1][1].push([form.state.task, form.state.task]);
  const box = picker("task", groups, listed ? form.tasks()[0] : ownKind(form), (value) => {
    const isOwn = Object.values(OWN).includes(value);
    form.own = isOwn ? value : null;
    form.pickTasks([isOwn ? "" : value]);
    form.redraw("task");
  });
  const { state } = form;
  if (!listed && ownKind(form) === OWN.hub) addText(form, box, "Hub data set", state.task.replace(/^hub:/, ""), "owner/name", (text) => (state.task = text ? `hub:${text}` : ""));
  if (!listed && ownKind(form) === OWN.path) addText(form, box, "Path on the server", state.task, "table.csv, or a folder", (text) => (state.task = text));
  return box;
}
