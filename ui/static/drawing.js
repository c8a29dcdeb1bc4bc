// A field to draw on: light ink on dark ground, by mouse, pen or finger; with keys by the arrows.

import { h } from "./util.js";

const SIDE = 280, PEN = 34, STEP = 10;

export class Drawing {
  /** onChange: called when a stroke ends or the field was cleared. */
  constructor(onChange) {
    this.canvas = h("canvas", {
      width: String(SIDE), height: String(SIDE), tabindex: "0", role: "application",
      "aria-label": "Drawing field. Draw with the mouse or a finger; or move with the arrow keys, hold Shift to draw.",
    });
    this.clearer = h("button.rl-button.rl-small", { type: "button", onclick: () => this.clear() }, "Clear");
    this.element = h("div.rl-draw", {}, this.canvas, this.clearer);
    this.onChange = onChange;
    this.pen = this.canvas.getContext("2d");
    this.at = [SIDE / 2, SIDE / 2];
    this.listen();
    this.blank();
  }

  blank() {
    this.pen.fillStyle = "#000";
    this.pen.fillRect(0, 0, SIDE, SIDE);
    Object.assign(this.pen, { strokeStyle: "#fff", lineWidth: PEN, lineCap: "round", lineJoin: "round" });
    this.empty = true;
  }

  clear() {
    this.blank();
    this.onChange();
  }

  listen() {
    const { canvas } = this;
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      this.drawing = true;
      this.at = this.place(event);
      this.to(this.at);
    });
    canvas.addEventListener("pointermove", (event) => {
      if (!this.drawing) return;
      for (const one of event.getCoalescedEvents?.() ?? [event]) this.to(this.place(one));
    });
    for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, () => this.end());
    canvas.addEventListener("keydown", (event) => this.key(event));
    canvas.addEventListener("keyup", (event) => event.key === "Shift" && this.end());
  }

  place(event) {
    const box = this.canvas.getBoundingClientRect();
    return [((event.clientX - box.left) * SIDE) / box.width, ((event.clientY - box.top) * SIDE) / box.height];
  }

  to(place) {
    this.pen.beginPath();
    this.pen.moveTo(...this.at);
    this.pen.lineTo(...place);
    this.pen.stroke();
    this.at = place;
    this.empty = false;
  }

  end() {
    if (!this.drawing) return;
    this.drawing = false;
    this.onChange();
  }

  key(event) {
    const [right, down] = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key] ?? [];
    if (right === undefined) return;
    event.preventDefault();
    const within = (value) => Math.max(0, Math.min(SIDE, value));
    const place = [within(this.at[0] + STEP * right), within(this.at[1] + STEP * down)];
    if (event.shiftKey) {
      this.drawing = true;
      this.to(place);
    }
    this.at = place;
  }

  /** A PNG of the field. */
  picture() {
    return new Promise((resolve) => this.canvas.toBlob(resolve, "image/png"));
  }
}
