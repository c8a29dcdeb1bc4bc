// The form of a new comparison, made from the server's lists. Its state is a plain object of texts.

import { atMost, fieldInput, setError } from "./fields.js";
import { fixed, get, h, has, post, swatch, whole, words } from "./util.js";

const FIRST = ["rank", "bottleneck", "length", "target_rank", "d", "sparsity", "masks"];
const SAVED = "ranklab-form";
const BUDGET_TRIES = 5, BUDGET_PAUSE = 3000; // ms: while the server is still busy with its first imports
const EMPTY = { model: "", task: "", task_options: {}, methods: [], lock: "", lock_to: "", seeds: "0, 1", training: {} };

export class Form {
  constructor(root, onStart) {
    this.root = root;
    this.onStart = onStart;
    this.catalogue = null;
    this.state = null;
    this.looks = [];
    root.addEventListener("submit", (event) => {
      event.preventDefault();
      this.onStart(this.state);
    });
  }

  /** initial: the form of the comparison shown; what was typed in this tab before wins, and a link wins over that. */
  async open(initial, looks) {
    this.looks = looks;
    const [catalogue, pick, data, presets, starts, said] = await Promise.all([get("catalogue"), ...["pick", "data", "presets", "starts", "said"].map((part) => import(`./${part}.js`))]);
    const link = await said.linked();
    this.state = structuredClone({ ...EMPTY, ...(link?.form ?? this.saved() ?? initial) });
    this.notes = link?.notes ?? [];
    this.catalogue = { ...catalogue, benchmarks: [], complete: false };
    this.pick = pick;
    this.data = new data.Data(this);
    this.presets = new presets.Presets(this);
    this.starts = new starts.Starts(this);
    this.said = new said.Said(this);
    this.draw();
    this.said.changed(Boolean(link));
    this.starts.open();
    this.openBenchmarks();
  }

  /** The list of benchmarks takes a look at the disk, so the form does not wait for it. */
  async openBenchmarks() {
    this.catalogue.benchmarks = await get("benchmarks").catch(() => []);
    this.catalogue.complete = true;
    this.redraw();
    this.presets.follow();
  }

  saved() {
    try {
      return JSON.parse(sessionStorage.getItem(SAVED));
    } catch {
      return null;
    }
  }

  fill(form) {
    this.state = structuredClone({ ...EMPTY, ...form });
    this.own = this.otherModel = null;
    this.notes = [];
    if (this.starts) this.starts.used = null;
    if (this.catalogue) this.draw();
    this.changed();
  }

  save() {
    sessionStorage.setItem(SAVED, JSON.stringify(this.state));
  }

  changed() {
    this.save();
    clearTimeout(this.budgetTimer);
    this.budgetTimer = setTimeout(() => this.showBudget(), 500);
    this.data?.changed();
    this.said?.changed(true);
  }

  /** Draw anew; the field that was in use, or `focus`, is in use again. What was said of the values stays unless one is new. */
  redraw(focus = null) {
    const active = this.root.contains(document.activeElement) ? document.activeElement : null;
    const field = focus ?? active?.closest("[data-field]")?.dataset.field;
    const open = [".rl-advanced", ".rl-partners"].filter((name) => this.root.querySelector(name)?.open);
    const place = active?.selectionStart ?? null;
    const said = focus ? [] : [...this.root.querySelectorAll(".rl-bad")].map((box) => [box.dataset.field, box.querySelector(".rl-error").textContent]);
    const general = focus ? "" : this.general.textContent;
    const working = this.start.disabled;
    this.draw();
    for (const [name, message] of said) if (this.boxOf(name)) setError(this.boxOf(name), message);
    this.general.textContent = general;
    this.busy(working);
    for (const name of open) this.root.querySelector(name)?.setAttribute("open", "");
    const input = field && this.root.querySelector(`[data-field="${CSS.escape(field)}"] :is(input, select)`);
    input?.focus({ preventScroll: true });
    if (!focus && place !== null && input?.type === "text") input.setSelectionRange(place, place);
    if (focus) this.changed();
  }

  draw() {
    this.rows = h("div.rl-rows");
    this.start = h("button.rl-big", { type: "submit" }, "Start");
    this.general = h("p.rl-error", { role: "alert", "data-general": true });
    this.root.replaceChildren(
      this.starts.draw(), ...this.notes.map((note) => h("p.rl-problem.rl-sub", {}, note)),
      h("div.rl-grid2", {}, this.pick.modelField(this), this.pick.taskField(this)),
      this.taskOptions(),
      h("h4", {}, "Methods"), this.rows, this.adder(), this.lockBox(),
      h("div.rl-grid2", {}, this.field("seeds", { name: "seeds", type: "str", help: "one run per method and seed, separated by commas" }), this.lengthField()),
      h("div.rl-grid2", {}, this.training("batch_size"), this.training("learning_rate")),
      this.advanced(), this.said.box,
      h("div.rl-go", {}, this.general, this.start));
    this.drawRows();
  }

  // --- single fields ---

  /** What a public page takes of a field; nothing on a page of one's own. */
  most(name) {
    const limits = this.catalogue.limits;
    return limits && (name === "seeds" ? `${limits.runs} runs` : limits[name === "max_new_tokens" ? "max_length" : name]);
  }

  field(name, description, label) {
    return fieldInput(name, { ...description, most: this.most(name) }, this.state[name], (text) => this.set(() => (this.state[name] = text)), label);
  }

  set(change) {
    change();
    this.changed();
  }

  training(name) {
    const description = this.catalogue.training.find((field) => field.name === name);
    return fieldInput(`training.${name}`, { ...description, most: this.most(name) }, this.state.training[name], (text) => this.set(() => (this.state.training[name] = text)));
  }

  pickModel(model) {
    this.state.model = model;
    const fitting = this.fittingTasks();
    if (this.listed() && !this.tasks().every((id) => fitting.some((task) => task.id === id))) this.pickTasks([fitting[0]?.id ?? ""]);
    this.redraw("model");
  }

  allTasks() {
    return [...this.catalogue.tasks, ...this.catalogue.benchmarks];
  }

  fittingTasks() {
    const model = this.catalogue.models.find((entry) => entry.id === this.state.model);
    const can = (task) => !model.problems || !task.problem || model.problems.includes(task.problem);
    return this.allTasks().filter((task) => !model || (can(task) && (task.modality === "any" || task.modality === model.modality)));
  }

  /** Whether the task looks like one of a list that has not come yet. */
  pending() {
    return !this.catalogue.complete && !this.own && !this.listed() && /^[\w-]+(\/[\w.-]+)?$/.test(this.state.task);
  }

  /** Whether every chosen task is one of the lists. */
  listed() {
    return !this.own && this.tasks().every((id) => this.allTasks().some((task) => task.id === id));
  }

  /** Ids of the chosen tasks: the state holds them as "a+b". */
  tasks() {
    const parts = this.state.task.split("+");
    return parts.every((id) => this.allTasks().some((task) => task.id === id)) ? parts : [this.state.task];
  }

  pickTasks(ids) {
    this.state.task = ids.join("+");
    this.state.task_options = {};
  }

  /** Boxes for the tasks that can be trained together with the first one. */
  partners() {
    const [first, ...others] = this.tasks();
    const fitting = this.fittingTasks().filter((task) => task.joins);
    if (!fitting.some((task) => task.id === first)) return null;
    const box = (task) => {
      const input = h("input", { type: "checkbox", value: task.id, checked: others.includes(task.id) });
      input.addEventListener("change", () => {
        this.pickTasks(input.checked ? [first, ...others, task.id] : [first, ...others.filter((id) => id !== task.id)]);
        this.partnersOpen = true;
        this.draw();
        this.changed();
        this.root.querySelector(`.rl-partners input[value="${CSS.escape(task.id)}"]`)?.focus();
      });
      return h("label", {}, input, " ", task.title);
    };
    const boxes = fitting.filter((task) => task.id !== first).map(box);
    const title = others.length ? `Trained together with ${others.length} more` : "Train together with";
    return boxes.length ? h("details.rl-partners", { open: this.partnersOpen || others.length > 0 }, h("summary", {}, title), h("p.rl-sub", {}, "One task a batch; each task has its own head and score."), h("div.rl-boxes", {}, boxes)) : null;
  }

  taskOptions() {
    if (this.pending()) return h("div");
    if (!this.listed()) return this.data.draw(this.pick.ownKind(this) === this.pick.OWN.file);
    const ids = this.tasks();
    const parts = ids.map((id) => this.allTasks().find((entry) => entry.id === id));
    const about = parts.map((task) => h("p.rl-sub", {}, `${ids.length > 1 ? `${task.title}: ` : ""}${task.description} Metric: ${words(task.metric)}.`));
    const inputs = parts.flatMap((task) => task.options.map((option) => {
      const name = ids.length > 1 ? `${task.id}.${option.name}` : option.name;
      return fieldInput(`task_options.${name}`, { ...option, name }, this.state.task_options[name], (text) => this.set(() => (this.state.task_options[name] = text)));
    }));
    const paper = parts.length === 1 && parts[0].presets ? this.presets.box(ids[0]) : null;
    const rows = parts.length === 1 && has(parts[0].at_hand) ? this.data.draw(false) : null;
    return h("div.rl-task", {}, about, this.partners(), inputs.length ? h("div.rl-grid3", {}, inputs) : null, paper, rows);
  }

  lengthField() {
    const unit = this.state.training.epochs ? "epochs" : "steps";
    const description = this.catalogue.training.find((field) => field.name === unit);
    const kind = { ...description, default: unit === "steps" ? "240" : "", most: this.most(unit) };
    const box = fieldInput(`training.${unit}`, kind, this.state.training[unit], (text) => this.set(() => (this.state.training[select.value] = text)), "length");
    const select = h("select", { "aria-label": "unit of the length" }, h("option", { value: "steps" }, "steps"), h("option", { value: "epochs" }, "epochs"));
    select.value = unit;
    const input = box.querySelector("input");
    select.addEventListener("change", () => {
      this.state.training.steps = this.state.training.epochs = "";
      this.state.training[select.value] = input.value;
      input.placeholder = select.value === "steps" ? "240" : "";
      box.dataset.field = `training.${select.value}`;
      box.querySelector(".rl-upto").textContent = atMost(this.most(select.value));
      this.changed();
    });
    const pair = h("div.rl-pair");
    input.replaceWith(pair);
    pair.append(input, select);
    return box;
  }

  advanced() {
    const shown = ["steps", "epochs", "batch_size", "learning_rate"];
    const training = this.catalogue.training.filter((field) => !shown.includes(field.name)).map((field) => this.training(field.name));
    const comparison = this.catalogue.comparison.map((field) => this.field(field.name, field));
    return h("details.rl-advanced", {}, h("summary", {}, "Advanced"), h("div.rl-grid3", {}, comparison, training));
  }

  // --- methods ---

  adder() {
    const families = [...new Set(this.catalogue.methods.map((method) => method.family))];
    const groups = families.map((family) => h("optgroup", { label: family }, this.catalogue.methods.filter((method) => method.family === family).map((method) => h("option", { value: method.id }, method.title))));
    const select = h("select", { "aria-label": "Method to add" }, groups);
    const add = h("button.rl-button", { type: "button" }, "Add method");
    add.addEventListener("click", () => {
      this.state.methods.push({ id: select.value, options: {} });
      this.drawRows();
      this.changed();
      this.rows.lastElementChild.querySelector("input, select")?.focus();
    });
    return h("div.rl-add", { "data-field": "methods" }, h("div.rl-pair", {}, select, add), h("p.rl-error", { "aria-live": "polite" }));
  }

  /** The budget lock, and the method that the others become equal to. */
  lockBox() {
    const kinds = this.catalogue.locks.map((lock) => [lock.id, lock.title]);
    const kind = this.chooser("lock", "budget lock", "the size of every method (rank, bottleneck, length) is moved to where it comes nearest", [["", "free"], ...kinds]);
    this.lockTo = h("div");
    return h("div.rl-grid2", {}, kind, this.lockTo);
  }

  chooser(name, label, help, choices) {
    const id = `rl-${name.replace("_", "-")}`;
    const select = h("select", { id, "aria-describedby": `${id}-error` }, choices.map(([value, text]) => h("option", { value }, text)));
    select.value = this.state[name] ?? "";
    select.addEventListener("change", () => {
      this.set(() => (this.state[name] = select.value));
      this.drawLockTo();
    });
    return h("div.rl-field", { "data-field": name, title: help }, h("label", { for: id }, label), select, h("p.rl-error", { id: `${id}-error`, "aria-live": "polite" }));
  }

  drawLockTo() {
    const { lock, methods } = this.state;
    const title = (row) => this.catalogue.methods.find((entry) => entry.id === row.id)?.title ?? row.id;
    const choices = methods.map((row, place) => [place ? String(place) : "", `${place + 1}. ${title(row)}`]);
    this.lockTo.replaceChildren(...(lock && methods.length ? [this.chooser("lock_to", "equal to", "the method that stays as it is", choices)] : []));
  }

  /** The reference stays the same row when another one goes; without its row it is the first again. */
  forget(place) {
    const kept = Number(this.state.lock_to || 0);
    const moved = kept === place ? 0 : kept > place ? kept - 1 : kept;
    this.state.lock_to = moved ? String(moved) : "";
  }

  drawRows() {
    this.rows.replaceChildren(...this.state.methods.map((row, place) => this.row(row, place)));
    this.drawLockTo();
    this.showBudget();
  }

  row(row, place) {
    const method = this.catalogue.methods.find((entry) => entry.id === row.id);
    const remove = h("button.rl-button.rl-small", { type: "button", "aria-label": `Remove ${method?.title ?? row.id}` }, "Remove");
    remove.addEventListener("click", () => {
      this.state.methods.splice(place, 1);
      this.forget(place);
      this.drawRows();
      this.changed();
      this.rows.nextElementSibling.querySelector("button").focus();
    });
    const input = (field) => fieldInput(`methods.${place}.${field.name}`, field, row.options[field.name], (text) => this.set(() => (row.options[field.name] = text)));
    const fields = method?.fields ?? [];
    const order = (field) => FIRST.indexOf(field.name);
    const first = fields.filter((field) => order(field) >= 0).sort((a, b) => order(a) - order(b)).map(input);
    const rest = fields.filter((field) => !FIRST.includes(field.name)).map(input);
    const opened = fields.some((field) => !FIRST.includes(field.name) && row.options[field.name]);
    return h("div.rl-row", { "data-field": `methods.${place}` },
      h("div.rl-row-head", {}, this.looks.length ? swatch(this.looks[place % this.looks.length]) : null, h("strong", {}, method?.title ?? row.id), h("code", {}, row.id), remove),
      first.length ? h("div.rl-grid4", {}, first) : null,
      rest.length ? h("details.rl-more", { open: opened }, h("summary", {}, "More options"), h("div.rl-grid3", {}, rest)) : null,
      h("p.rl-budget.rl-sub"),
      h("p.rl-locked.rl-sub", { role: "status" }),
      h("p.rl-error", { "aria-live": "polite" }));
  }

  /** What each row would train, asked for after a pause in typing. */
  async showBudget() {
    const { model, task, methods, lock, lock_to } = this.state;
    const asked = JSON.stringify([model, task, methods, lock, lock_to]);
    if (asked === this.askedBudget || !this.state.methods.length) return;
    this.askedBudget = asked;
    const figures = await post("budget", { model, task, methods, lock: lock ?? "", lock_to: lock_to ?? "" }).catch(() => null);
    if (asked !== this.askedBudget) return;
    if (!figures) {
      this.askedBudget = null;
      this.budgetFailed = (this.budgetFailed ?? 0) + 1;
      if (this.budgetFailed <= BUDGET_TRIES) this.budgetTimer = setTimeout(() => this.showBudget(), BUDGET_PAUSE);
    } else this.budgetFailed = 0;
    [...this.rows.children].forEach((element, place) => {
      const found = figures?.[place];
      element.querySelector(".rl-budget").textContent = found ? budgetText(found) : "";
      element.querySelector(".rl-locked").textContent = found?.lock ?? "";
    });
  }

  // --- messages ---

  showErrors(errors) {
    this.clearErrors();
    const unplaced = [];
    for (const error of errors) {
      const box = this.boxOf(error.field);
      if (box) setError(box, error.message);
      else unplaced.push(error.message);
    }
    const others = errors.length - unplaced.length;
    this.general.textContent = [...unplaced, others ? `Nothing was started: ${others === 1 ? "one field needs" : others + " fields need"} another value.` : ""].join(" ");
    const bad = this.root.querySelector(".rl-bad");
    for (let parent = bad?.closest("details"); parent; parent = parent.parentElement.closest("details")) parent.open = true;
    bad?.querySelector("input, select")?.focus();
  }

  /** The box of a field, or of the nearest thing around it: `methods.0.rank`, `methods.0`, `methods`. */
  boxOf(field) {
    const parts = (field || "").split(".");
    for (let length = parts.length; length > 0; length--) {
      const box = this.root.querySelector(`[data-field="${CSS.escape(parts.slice(0, length).join("."))}"]`);
      if (box) return box;
    }
    return null;
  }

  clearErrors() {
    this.general.textContent = "";
    for (const box of this.root.querySelectorAll(".rl-bad")) setError(box, "");
  }

  busy(working) {
    if (!this.start) return;
    this.start.disabled = working;
    this.start.textContent = working ? "Checking" : "Start";
  }
}

function budgetText(figures) {
  const parts = [`trains ${whole(figures.trainable)}`];
  if (has(figures.trainable_percent)) parts[0] += ` (${fixed(figures.trainable_percent, 2)} %)`;
  if (has(figures.rank_bound)) parts.push(`rank at most ${figures.rank_bound}`);
  if (has(figures.adapter_flops_nominal)) parts.push(`FLOPs a token ${whole(figures.adapter_flops_nominal)} nominal, ${whole(figures.adapter_flops_executed)} executed`);
  return parts.join("; ");
}
