// A look at a task's rows: upload, guessed columns to correct, label balance, token lengths, first rows.

import { fieldInput } from "./fields.js";
import { bytes, h, has, isAnswer, post, Refusal, whole, words } from "./util.js";

const PAUSE = 700, SHOWN_LABELS = 12, SHOWN_CELL = 140;
const ROLES = { kind: "kind of task", text2: "second text", answers: "answers", target: "text to write" };

export class Data {
  constructor(form) {
    this.form = form;
    this.found = null;
    this.asked = "";
    this.body = h("div.rl-found", { "aria-live": "polite" });
    this.panel = h("div.rl-own");
  }

  /** The panel for what is chosen: a file to upload, or a name that was typed; and what was found. */
  draw(fromFile) {
    if (this.found && this.found.of !== this.form.state.task) this.clear();
    const button = h("button.rl-button.rl-look", { type: "button" }, "Look at the data");
    button.addEventListener("click", () => this.look());
    this.panel.replaceChildren(...(fromFile ? [this.uploader()] : []), button, this.body);
    button.hidden = fromFile && !this.form.state.task;
    return this.panel;
  }

  clear() {
    this.found = null;
    this.asked = "";
    this.body.replaceChildren();
  }

  // --- upload ---

  uploader() {
    const { task } = this.form.state;
    const input = h("input", { type: "file", id: "rl-file", accept: ".csv,.tsv,.txt,.jsonl,.ndjson,.json,.parquet,.gz,.zip", "aria-describedby": "rl-file-help rl-file-error" });
    input.addEventListener("change", () => input.files[0] && this.send(input.files[0]));
    const limit = bytes(this.form.catalogue.upload_limit);
    this.progress = h("progress", { max: "1", "aria-label": "Upload", hidden: true });
    this.abort = h("button.rl-button.rl-small", { type: "button", hidden: true }, "Cancel upload");
    this.error = h("p.rl-error", { id: "rl-file-error", role: "alert" });
    const kept = task ? h("p.rl-kept", {}, task.split(/[/\\]/).at(-1)) : null;
    return h("div.rl-field", { "data-field": "upload" }, kept, h("label", { for: "rl-file" }, task ? "Another file" : "File"), input,
      h("p.rl-sub", { id: "rl-file-help" }, `A table (CSV, TSV, JSON lines, Parquet; also .gz) or a zip with a folder of images for each class; at most ${limit}.`),
      this.progress, this.abort, this.error);
  }

  async send(file) {
    this.error.textContent = "";
    const { upload_limit: limit } = this.form.catalogue;
    try {
      if (file.size > limit) throw new Refusal([{ message: `${file.name} has ${bytes(file.size)}; at most ${bytes(limit)} are taken.` }]);
      const answer = await this.transfer(file);
      this.form.pickTasks([answer.task]);
      this.form.redraw("upload");
      this.look();
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      this.error.textContent = error.message;
    } finally {
      this.progress.hidden = this.abort.hidden = true;
    }
  }

  /** fetch tells no progress of what it sends. */
  transfer(file) {
    return new Promise((resolve, reject) => {
      const request = new XMLHttpRequest();
      const failed = (message) => reject(new Refusal([{ message }]));
      request.open("POST", `ranklab/upload?${new URLSearchParams({ name: file.name })}`);
      request.setRequestHeader("Content-Type", "application/octet-stream");
      request.responseType = "json";
      request.upload.onprogress = (event) => (this.progress.value = event.total ? event.loaded / event.total : 0);
      request.onload = () => {
        if (request.response?.errors) reject(new Refusal(request.response.errors));
        else if (request.status !== 200 || !request.response) failed("The server refused the file.");
        else resolve(request.response);
      };
      request.onerror = () => failed("The file did not arrive; try again.");
      request.onabort = () => failed("The upload was cancelled; nothing was kept.");
      this.abort.onclick = () => request.abort();
      this.progress.value = 0;
      this.progress.hidden = this.abort.hidden = false;
      request.send(file);
    });
  }

  // --- looking ---

  question() {
    const { model, task, task_options, training } = this.form.state;
    return { model, task, task_options, max_length: training.max_length ?? "" };
  }

  /** After a change of the form: look again, where there has been a look. */
  changed() {
    if (this.found && this.found.of !== this.form.state.task) this.clear();
    if (!this.asked || JSON.stringify(this.question()) === this.asked) return;
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.panel.isConnected && this.look(), PAUSE);
  }

  async look() {
    const question = this.question(), asked = JSON.stringify(question);
    clearTimeout(this.timer);
    this.asked = asked;
    this.body.setAttribute("aria-busy", "true");
    if (!this.body.firstChild) this.body.replaceChildren(h("p.rl-sub", {}, "Reading."));
    let parts;
    try {
      const found = await post("preview", question);
      if (asked !== this.asked) return;
      this.found = { ...found, of: question.task };
      parts = this.parts(this.found);
    } catch (error) {
      if (!isAnswer(error)) throw error;
      if (asked !== this.asked) return;
      parts = [h("p.rl-error", {}, error instanceof Refusal ? error.message : "The server does not answer.")];
    }
    this.body.removeAttribute("aria-busy");
    this.replace(parts);
  }

  /** Put the new parts in place; who was typing or choosing in the old ones goes on in the new. */
  replace(parts) {
    const field = this.body.contains(document.activeElement) ? document.activeElement.closest("[data-field]")?.dataset.field : null;
    const open = this.body.querySelector("details.rl-more")?.open;
    this.body.replaceChildren(...parts.filter(Boolean));
    if (open) this.body.querySelector("details.rl-more")?.setAttribute("open", "");
    if (field) this.body.querySelector(`[data-field="${CSS.escape(field)}"] :is(input, select)`)?.focus();
  }

  parts(found) {
    return [
      ...found.problems.map((sentence) => h("p.rl-error.rl-problem", {}, sentence)),
      found.columns.length ? this.columns(found) : null,
      this.facts(found),
      balance(found),
      ...found.notes.map((sentence) => h("p.rl-sub.rl-wrap", {}, sentence)),
      found.tokens ? h("p.rl-sub.rl-tokens", {}, found.tokens.said) : null,
      firstRows(found),
      this.rest(found),
      h("details.rl-more", {}, h("summary", {}, "The same look in a terminal"), h("pre.rl-command", { tabindex: "0" }, found.command)),
    ];
  }

  facts(found) {
    if (!found.task) return found.rows ? h("p.rl-sub", {}, `${whole(found.rows)} rows.`) : null;
    const { max_train_rows: train, max_eval_rows: held, metrics } = found.task;
    const kind = found.kind ? `${found.kind.replaceAll("_", " ")}, ` : "";
    return h("p.rl-facts-line", {}, `${kind}${whole(found.rows)} rows: ${whole(train)} to train on, ${whole(held)} to evaluate on. Metric: ${words(metrics[0])}.`);
  }

  /** Selects for the kind and for the column of every role: empty means the guess. */
  columns(found) {
    const { task_options: options } = this.form.state;
    if (!found.options.some((option) => option.name === "kind")) return null;
    const kind = options.kind || found.kind;
    const roles = found.kinds[kind] ?? ["text", "label"];
    const pick = (name, choices, guess) => {
      const fallback = guess ? `${guess} (guess)` : "guess";
      return fieldInput(`task_options.${name}`, { name, choices, fallback, help: "" }, options[name], (text) => this.choose(name, text, found), ROLES[name]);
    };
    const guess = (role) => (options[role] ? "" : found.roles[role]);
    return h("div.rl-grid2.rl-columns", {}, pick("kind", Object.keys(found.kinds), options.kind ? "" : found.kind), roles.map((role) => pick(role, found.columns, guess(role))));
  }

  choose(name, text, found) {
    const { task_options: options } = this.form.state;
    this.form.set(() => (options[name] = text));
    if (name !== "kind") return this.look();
    const kept = found.kinds[text];
    const roles = new Set(Object.values(found.kinds).flat());
    for (const role of roles) if (kept && !kept.includes(role)) delete options[role];
    this.form.changed();
    return this.look();
  }

  /** Everything else that the task takes. */
  rest(found) {
    const roles = new Set([...Object.values(found.kinds).flat(), "kind", "protocol"]);
    const rest = found.options.filter((option) => !roles.has(option.name));
    if (!rest.length || this.form.listed()) return null;
    const { task_options: options } = this.form.state;
    const field = (option) => {
      const described = { ...option, default: has(option.default) ? String(option.default) : "", nullable: !has(option.default) };
      return fieldInput(`task_options.${option.name}`, described, options[option.name], (text) => this.form.set(() => (options[option.name] = text)));
    };
    const open = rest.some((option) => options[option.name] || found.problems.some((sentence) => sentence.includes(`${option.name}=`)));
    return h("details.rl-more", { open }, h("summary", {}, "How it is read and split"), h("div.rl-grid3", {}, rest.map(field)));
  }
}

function balance(found) {
  const labels = Object.entries(found.labels).sort((a, b) => b[1] - a[1]);
  if (!labels.length) return null;
  const total = labels.reduce((sum, [, count]) => sum + count, 0), largest = labels[0][1] || 1;
  const row = ([name, count]) => {
    const fill = h("i.rl-some");
    fill.style.cssText = `width:${(100 * count) / largest}%;--rl-colour:var(--rl-accent)`;
    return h("div.rl-barrow", { title: name }, h("span.rl-barname", {}, name), h("span.rl-barline", {}, fill), h("span.rl-barvalue", {}, `${whole(count)} (${total ? Math.round((100 * count) / total) : 0} %)`));
  };
  const more = labels.length - SHOWN_LABELS;
  return h("div.rl-balance", {}, h("h4", {}, `Labels: ${labels.length}`), labels.slice(0, SHOWN_LABELS).map(row), more > 0 ? h("p.rl-sub", {}, `and ${more} more`) : null);
}

function firstRows(found) {
  if (!found.examples.length) return null;
  const used = Object.values(found.roles), columns = [...new Set([...used, ...found.columns])];
  const role = Object.fromEntries(Object.entries(found.roles).map(([name, column]) => [column, ROLES[name] ?? name]));
  const cell = (text) => h("td", { title: text }, text.length > SHOWN_CELL ? `${text.slice(0, SHOWN_CELL)}…` : text);
  const head = h("tr", {}, columns.map((name) => h("th", { scope: "col" }, name, role[name] && role[name] !== name ? h("span.rl-sub", {}, ` ${role[name]}`) : null)));
  const rows = found.examples.map((example) => h("tr", {}, columns.map((name) => cell(example[name] ?? ""))));
  return h("div.rl-scroll", { tabindex: "0", role: "region", "aria-label": "First rows" }, h("table.rl-rows-table", {}, h("thead", {}, head), h("tbody", {}, rows)));
}
