// The papers' settings for a benchmark: one choice fills the form, visibly.

import { read, write } from "./address.js";
import { get, h, Refusal } from "./util.js";

const texts = (values) => Object.fromEntries(Object.entries(values).map(([name, value]) => [name, String(value)]));

export class Presets {
  constructor(form) {
    this.form = form;
    this.known = new Map();
    this.used = null;
    document.addEventListener("ranklab-address", ({ detail }) => detail.tab === "compare" && form.catalogue?.complete && this.follow());
  }

  /** A preset that the address names as `preset=task|name`, and options of its method as `with=a=1,b=2`: fill the form. */
  async follow() {
    const { preset: wanted, with: text = "" } = read();
    if (!wanted) return;
    write({ preset: null, with: null });
    const [task, name] = [wanted.slice(0, wanted.indexOf("|")), wanted.slice(wanted.indexOf("|") + 1)];
    try {
      const preset = (await this.list(task)).find((one) => one.name === name);
      if (!preset) throw new Refusal([{ message: `There is no preset ${name} for ${task}.` }]);
      const options = Object.fromEntries(text.split(",").filter(Boolean).map((part) => [part.slice(0, part.indexOf("=")), part.slice(part.indexOf("=") + 1)]));
      this.form.own = null;
      this.form.pickTasks([task]);
      this.form.state.model = this.modelFor(preset, task);
      this.form.root.closest("details").open = true;
      this.use({ ...preset, options: { ...preset.options, ...options } });
      this.form.root.scrollIntoView({ block: "nearest" });
    } catch (error) {
      this.form.showErrors(error instanceof Refusal ? error.errors : [{ field: "", message: "The server does not answer; the preset was not filled in." }]);
    }
  }

  /** The paper's model where it is on this machine, else one that is and can do the task: the form's own first. */
  modelFor(preset, task) {
    const { models, benchmarks } = this.form.catalogue;
    const found = benchmarks.find((entry) => entry.id === task);
    const fits = (model) => model.at_hand && (!found || (model.modality === found.modality && (!model.problems || model.problems.includes(found.problem))));
    const wanted = [preset.model, this.form.state.model, ...models.map((model) => model.id)];
    return wanted.find((id) => models.some((model) => model.id === id && fits(model))) ?? preset.model;
  }

  /** The element for a benchmark; filled when the list has come. */
  box(task) {
    const box = h("div.rl-presets");
    this.list(task).then((presets) => this.fill(box, task, presets)).catch(() => box.remove());
    return box;
  }

  async list(task) {
    if (!this.known.has(task)) this.known.set(task, await get("presets", { task }));
    return this.known.get(task);
  }

  fill(box, task, presets) {
    const papers = [...new Set(presets.map((preset) => `${preset.paper}, ${preset.model}`))];
    const group = (paper) => h("optgroup", { label: paper }, presets.filter((preset) => `${preset.paper}, ${preset.model}` === paper).map((preset) => h("option", { value: preset.name }, preset.name.split("/").slice(2).join("/"))));
    const select = h("select", { id: "rl-preset" }, h("option", { value: "" }, "none"), papers.map(group));
    const used = this.used?.task === task ? this.used : null;
    select.value = used?.name ?? "";
    select.addEventListener("change", () => this.use(presets.find((preset) => preset.name === select.value)));
    box.replaceChildren(h("div.rl-field", {}, h("label", { for: "rl-preset" }, "Use a paper's settings"), select), ...(used ? this.about(used) : []));
  }

  use(preset) {
    this.used = preset ?? null;
    if (preset) {
      const { state } = this.form;
      const { steps, epochs, ...kept } = state.training;
      state.training = { ...kept, ...texts(preset.training) };
      state.methods = [{ id: preset.method, options: texts(preset.options) }];
      state.task_options = { ...state.task_options, protocol: preset.protocol };
    }
    this.form.redraw("preset");
    const seen = ["steps", "epochs", "batch_size", "learning_rate"];
    if (preset && Object.keys(preset.training).some((name) => !seen.includes(name))) this.form.root.querySelector(".rl-advanced").open = true;
    this.form.root.querySelector("#rl-preset")?.focus();
  }

  about(preset) {
    const values = { ...preset.options, ...preset.training, ...preset.beyond };
    const line = ([name, place]) => h("li", {}, `${name.replaceAll("_", " ")} ${values[name] ?? ""}: ${place}`);
    const beyond = Object.entries(preset.beyond).map(([name, value]) => `${name.replaceAll("_", " ")} ${value}`).join(", ");
    const parts = [h("p.rl-sub", {}, "Method, settings and protocol are filled in below.", beyond ? ` Not taken over, for want of an option: ${beyond}.` : "")];
    if (this.form.state.model !== preset.model) {
      const button = h("button.rl-button.rl-small", { type: "button" }, `Use ${preset.model}`);
      button.addEventListener("click", () => {
        this.form.otherModel = false;
        this.form.pickModel(preset.model);
      });
      parts.push(h("p.rl-sub", {}, `The paper trained ${preset.model}. `, button));
    }
    parts.push(h("details.rl-more", {}, h("summary", {}, "Where each value is printed"), h("ul.rl-sources", {}, Object.entries(preset.sources).map(line))));
    return parts;
  }
}
