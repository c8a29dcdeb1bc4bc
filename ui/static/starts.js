// Comparisons to start from: one choice fills the form.

import { get, h } from "./util.js";

export class Starts {
  constructor(form) {
    this.form = form;
    this.used = null;
    this.presets = [];
    this.box = h("div.rl-field");
  }

  async open() {
    this.presets = await get("starts").catch(() => []);
    this.draw();
  }

  draw() {
    const groups = [...new Set(this.presets.map((preset) => preset.group))];
    const group = (name) => h("optgroup", { label: name }, this.presets.filter((preset) => preset.group === name).map((preset) => h("option", { value: preset.name }, preset.title)));
    const select = h("select", { id: "rl-start-from", "aria-describedby": "rl-start-about" }, h("option", { value: "" }, "what is in the form"), groups.map(group));
    select.value = this.used?.name ?? "";
    select.addEventListener("change", () => this.use(this.presets.find((preset) => preset.name === select.value)));
    this.box.hidden = !this.presets.length;
    this.box.replaceChildren(h("label", { for: "rl-start-from" }, "start from"), select, h("p.rl-sub", { id: "rl-start-about", role: "status" }, this.used?.about ?? ""));
    return this.box;
  }

  use(preset) {
    if (preset) this.form.fill(preset.form);
    this.used = preset ?? null;
    this.draw();
    this.box.querySelector("select").focus({ preventScroll: true });
  }
}
