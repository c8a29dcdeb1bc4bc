// The question's form: what the models read, with examples to begin with.

import { Drawing } from "./drawing.js";
import { bytes, h } from "./util.js";

const NAMES = { text: "text", text2: "second text", question: "question", context: "context" };
const LINES = { text: 3, text2: 3, question: 2, context: 7 };
const PAUSE = 450; // milliseconds after the last key until it is asked

export class Asking {
  /** ask: called with {input} or {picture, drawn}. */
  constructor(form, ask) {
    this.form = form;
    this.ask = ask;
    this.turn = 0;
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.now();
    });
  }

  draw(about, limits) {
    Object.assign(this, { about, limits, boxes: {}, picture: null, drawn: false, drawing: null });
    clearTimeout(this.typing);
    this.problem = h("p.rl-error", { role: "alert" });
    const fields = about.roles.includes("image") ? this.pictures() : about.roles.map((role) => this.box(role));
    const examples = about.examples.length ? h("div.rl-examples", { role: "group", "aria-label": "Evaluation rows as examples" }, h("span.rl-sub", {}, "Examples"), about.examples.map((entry, place) => this.example(entry, place))) : null;
    const why = about.why_no_examples ? h("p.rl-sub", {}, `No examples: ${about.why_no_examples}`) : null;
    this.form.replaceChildren(...[...fields, this.problem, h("button.rl-big", { type: "submit" }, "Ask"), examples, why].filter(Boolean));
  }

  box(role) {
    const box = h("textarea", { name: role, rows: String(LINES[role] ?? 3), maxlength: String(this.limits.text_limit), spellcheck: "false" });
    box.addEventListener("input", () => {
      this.say("");
      clearTimeout(this.typing);
      const complete = Object.values(this.boxes).every((one) => one.value.trim());
      if (complete && this.about.problem !== "generation") this.typing = setTimeout(() => this.now(), PAUSE);
    });
    box.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
      event.preventDefault();
      this.now();
    });
    this.boxes[role] = box;
    return h("label", {}, NAMES[role] ?? role, box);
  }

  pictures() {
    this.drawing = new Drawing(() => {
      this.seen.hidden = true;
      this.file.value = "";
      [this.picture, this.drawn] = [null, !this.drawing.empty];
      if (this.drawn) this.now();
    });
    this.file = h("input", { type: "file", accept: "image/*", name: "picture" });
    this.file.addEventListener("change", () => this.file.files[0] && this.show(this.file.files[0]));
    this.seen = h("img.rl-seen", { alt: "The picture that is asked about", hidden: true });
    const what = this.about.scan ? "Draw a digit" : "Draw";
    return [h("p.rl-sub", {}, `${what}, choose a picture (up to ${bytes(this.limits.picture_limit)}), or take an example.`), this.drawing.element, h("label", {}, "picture", this.file), this.seen];
  }

  example(entry, place) {
    const name = `Example ${place + 1}`;
    if (entry.image) {
      const image = h("img", { src: `data:image/png;base64,${entry.image}`, alt: "" });
      return h("button.rl-button.rl-small", { type: "button", "aria-label": name, onclick: () => this.show(blob(entry.image)) }, image);
    }
    const texts = Object.values(entry);
    return h("button.rl-button.rl-small", { type: "button", title: texts.join("\n"), onclick: () => this.fill(entry) }, texts[0].slice(0, 60));
  }

  fill(entry) {
    for (const [role, box] of Object.entries(this.boxes)) box.value = entry[role] ?? "";
    this.now();
  }

  show(picture) {
    URL.revokeObjectURL(this.seen.src);
    this.seen.src = URL.createObjectURL(picture);
    this.seen.hidden = false;
    this.drawing.blank();
    [this.picture, this.drawn] = [picture, false];
    this.now();
  }

  async now() {
    clearTimeout(this.typing);
    this.say("");
    if (this.drawing) {
      if (!this.picture && !this.drawn) return this.say("Draw something or choose a picture first.");
      if (this.picture?.size > this.limits.picture_limit) return this.say(`The picture has ${bytes(this.picture.size)}; up to ${bytes(this.limits.picture_limit)} are taken.`);
      const drawn = this.drawn;
      return this.ask({ picture: this.picture ?? (await this.drawing.picture()), drawn });
    }
    const empty = Object.values(this.boxes).find((box) => !box.value.trim());
    if (!empty) return this.ask({ input: Object.fromEntries(Object.entries(this.boxes).map(([role, box]) => [role, box.value])) });
    this.say("Type something first.");
    empty.focus();
  }

  say(text) {
    if (this.problem) this.problem.textContent = text;
  }
}

function blob(text) {
  return new Blob([Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0))], { type: "image/png" });
}
