// Byte pictures on canvases: a pixel a value, scaled up without smoothing.

import { palette } from "./charts.js";
import { button, saveCanvases } from "./charttools.js";
import { h } from "./util.js";

const BRANCHES = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f", "#8c6d31"];
const KEPT = [0, 114, 178], NEVER = [230, 159, 0], ABOVE = [213, 94, 0];

const rgb = (colour) => [1, 3, 5].map((start) => parseInt(colour.slice(start, start + 2), 16));
const ground = () => (document.body.classList.contains("dark") ? [26, 35, 48] : [255, 255, 255]);
const mixed = (from, to, share) => from.map((value, place) => Math.round(value + (to[place] - value) * share));
const bytes = (picture) => Uint8Array.from(atob(picture.data), (letter) => letter.charCodeAt(0));

function paint(canvas, picture, colour) {
  const { rows, cols } = picture;
  [canvas.width, canvas.height] = [cols, rows];
  const image = new ImageData(cols, rows);
  const values = picture.values;
  for (let place = 0; place < values.length; place += 1) {
    const [red, green, blue] = colour(values[place]);
    image.data.set([red, green, blue, 255], 4 * place);
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
}

const table = (colour) => Array.from({ length: 256 }, (_, value) => colour(value));

function signed() {
  const zero = ground();
  return table((value) => mixed(zero, value < 128 ? KEPT : ABOVE, Math.min(1, Math.abs(value - 128) / 90)));
}

function counted(d) {
  const light = mixed(ground(), KEPT, 0.25);
  return table((bits) => {
    const count = ones(bits);
    return count === 0 ? NEVER : mixed(light, KEPT, d > 1 ? (count - 1) / (d - 1) : 1);
  });
}

function ones(bits) {
  let count = 0;
  for (let rest = bits; rest; rest &= rest - 1) count += 1;
  return count;
}

const part = (picture) => {
  const [rows, cols] = picture.of;
  return picture.cols < cols ? `first ${picture.cols} of ${cols} positions` : `all ${cols} positions`;
};

const share = (values, test) => `${((100 * values.filter(test).length) / values.length).toFixed(1)} %`;

/** Strips of one tensor: every branch's mask, what survives, the values. Elements are kept and painted anew. */
export function drawTensors(root, answer) {
  for (const [name, title] of [["a", "A (r × in)"], ["b", "B (out × r), lying on its side"]]) {
    const section = root.querySelector(`[data-tensor="${name}"]`);
    const masks = { ...answer.pictures[`masks_${name}`] };
    const values = { ...answer.pictures[name] };
    [masks.values, values.values] = [bytes(masks), bytes(values)];
    const d = answer.used.d;
    const masked = answer.used.masks !== "none" && ["both", name.toUpperCase()].includes(answer.used.sides);
    const wanted = masked ? d + 2 : 1;
    if (section.querySelectorAll("canvas").length !== wanted || section.dataset.masked !== String(masked)) build(section, masked ? d : 0);
    section.dataset.masked = masked;
    section.querySelector("h4").textContent = title;
    section.querySelector("p").textContent = `${part(masks)}${masked ? "" : "; no mask on it: the same in every branch"}`;
    const canvases = [...section.querySelectorAll("canvas")];
    const height = Math.max(10, Math.min(masks.rows * 6, masked && d > 2 ? 44 : 96));
    for (const canvas of canvases) canvas.style.height = `${height}px`;
    if (masked) {
      for (let branch = 0; branch < d; branch += 1) {
        const colours = table((bits) => ((bits >> branch) & 1 ? rgb(BRANCHES[branch]) : ground()));
        paint(canvases[branch], masks, (value) => colours[value]);
        canvases[branch].setAttribute("aria-label", `Mask ${branch + 1} of ${name.toUpperCase()}: ${share(masks.values, (bits) => (bits >> branch) & 1)} of the shown values kept`);
      }
      const colours = counted(d);
      paint(canvases[d], masks, (value) => colours[value]);
      canvases[d].setAttribute("aria-label", `${share(masks.values, (bits) => bits)} of the shown values of ${name.toUpperCase()} kept by some mask`);
    }
    const colours = signed();
    paint(canvases.at(-1), values, (value) => colours[value]);
    canvases.at(-1).setAttribute("aria-label", `Values of the shared tensor ${name.toUpperCase()}`);
  }
}

function build(section, branches) {
  const strip = (text, title) => h("div.pg-strip", { title }, h("span", {}, text), h("canvas", { role: "img" }));
  const masks = Array.from({ length: branches }, (_, place) => strip(`mask ${place + 1}`, `what branch ${place + 1} keeps`));
  section.replaceChildren(h("h4"), h("p.rl-sub"), ...masks, ...(branches ? [strip("kept", "in how many branches a value is kept")] : []), strip("values", "the one shared tensor"));
}

/** ΔW's corner, and what its factors are. */
export function drawUpdate(box, answer) {
  if (!box.childElementCount) {
    box.replaceChildren(h("figure.pg-square", {}, h("canvas", { role: "img", "aria-label": "Corner of the update" }), h("figcaption.rl-sub")), h("div", {}, h("p", {}), h("p.rl-sub")));
  }
  const picture = { ...answer.pictures.delta };
  picture.values = bytes(picture);
  const colours = signed(), canvas = box.querySelector("canvas");
  paint(canvas, picture, (value) => colours[value]);
  canvas.style.aspectRatio = `${picture.cols} / ${picture.rows}`;
  const [rows, cols] = picture.of;
  const all = picture.rows === rows && picture.cols === cols;
  box.querySelector("figcaption").textContent = all ? `all of ΔW, ${rows} × ${cols}` : `the first ${picture.rows} × ${picture.cols} of ${rows} × ${cols} values`;
  const { d, rank } = answer.used;
  const [text, note] = box.querySelectorAll("div p");
  text.textContent = `ΔW = Σᵢ (B ∘ mask${d > 1 ? "ᵢ" : ""})(A ∘ mask${d > 1 ? "ᵢ" : ""}), ${d === 1 ? "one term" : `${d} terms`}: factors of ${rows} × ${d * rank} and ${d * rank} × ${cols}.`;
  note.textContent = "Spectrum and rank come from these factors (a QR of both, then the singular values of the small core); ΔW itself is never decomposed. A and B are Gaussian here, as if trained; in training B starts at zero.";
}

/** The buttons that save the masks' strips and the update as pictures. */
export function savers(root) {
  const strips = () => [...root.querySelectorAll(".pg-tensor")].flatMap((section) => [...section.querySelectorAll(".pg-strip")].map((strip) => [`${section.dataset.tensor.toUpperCase()} ${strip.textContent}`, strip.querySelector("canvas")]));
  const update = () => [...root.querySelectorAll(".pg-delta canvas")].map((canvas) => ["ΔW", canvas]);
  for (const [name, entries, title] of [["masks", strips, "Save these strips as a picture"], ["delta", update, "Save this corner of ΔW as a picture"]]) {
    const saved = button("PNG", title, () => entries().length && saveCanvases(entries(), palette().panel, palette().text, `ranklab-${name}`));
    root.querySelector(`.rl-panel-head:has([data-term="${name}"])`).append(h("span.rl-chart-tools", {}, saved));
  }
}
