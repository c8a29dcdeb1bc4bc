// "What is this?": the playground's definitions and their sources.

import { show } from "./define.js";
import { h } from "./util.js";

const TERMS = {
  bound: ["Rank and its bound", "The rank of ΔW is the number of its singular values above max(out, in)·ε·σ₁ (ε of float64). A sum of d products of inner dimension r has rank at most d·r, and no matrix has more rank than its smaller side. CapaBoost's theorem: with independent masks on one shared pair of Gaussian factors the rank is d·r with high probability. Equal masks, no masks, or masks on one factor alone leave it at r.", "CapaBoost (ICLR 2024), section 3"],
  spectrum: ["Spectrum", "The singular values of ΔW, from the largest to the smallest above rounding. Rank says how many there are; the curve's fall says how much the last ones matter. Rank can double while most of the energy stays in a few directions.", "Eckart and Young, 1936"],
  masks: ["Masks", "Every branch multiplies the same A and B with masks of its own that never change. Random masks keep an exact number of values; N:M masks keep N of every M neighbours along the inner side. They are drawn from the seed and the tensor's name alone, so only the seed is stored. These are the masks that training draws.", "CapaBoost (ICLR 2024), equation 3"],
  survivors: ["What survives", "A value is trained and stored if some mask keeps it. With independent masks of sparsity s that is 1 − s^d of them in the mean; with equal masks 1 − s. What no mask keeps gets no gradient.", "CapaBoost (ICLR 2024), section 4"],
  parameters: ["Parameters kept", "Values of A and B that some mask keeps. “As many as LoRA of r” divides them by out + in: the rank that LoRA could have for the same number of parameters.", "Hu et al., LoRA (ICLR 2022), section 4"],
  effective: ["Effective rank", "exp of the entropy of the singular values, normalised to sum 1. It counts directions by how much they carry.", "Roy and Vetterli, 2007"],
  stable: ["Stable rank", "‖ΔW‖²_F / ‖ΔW‖²₂: all squared singular values over the largest one. It never exceeds the rank.", "Rudelson and Vershynin, 2007"],
  draws: ["The theorem over draws", "Masks and Gaussian factors are drawn anew many times with these settings, and the rank of each sum is counted. The share says how often it is d·r exactly, as the theorem has it, and where it is not, how far the ranks fall short.", "CapaBoost (ICLR 2024), section 3"],
  delta: ["The update ΔW", "What is added to the frozen weight of the layer: the sum of the branches' products. It is drawn from its factors, value by value.", "CapaBoost (ICLR 2024), equation 3"],
  captured: ["Share captured", "1 − ‖ΔW − T‖²_F / ‖T‖²_F for the target T: 1 is a perfect copy, 0 is as good as no update. All methods start from the same seed and take the same Adam steps; the rate falls along half a cosine.", "Kingma and Ba, Adam (ICLR 2015)"],
  optimum: ["The mark on the bar", "The best that any matrix of this rank can capture: the target's largest singular values (truncated SVD). An unmasked pair can reach it, so there it is the exact optimum and a check of the optimiser. For masked, tied pairs it is only a ceiling: nobody knows their optimum, and what is shown is what Adam found.", "Eckart and Young, 1936"],
};

/** A question mark that opens a definition; `explain` listens. name: of the figure, for screen readers. */
export const term = (key, name = TERMS[key][0]) => h("button.rl-ask", { type: "button", "data-term": key, "aria-haspopup": "dialog", "aria-label": `What is this: ${name}` }, "?");

/** Every button with a data-term in `root` opens its definition. */
export function explain(root) {
  root.addEventListener("click", (event) => {
    const button = event.target.closest("[data-term]");
    if (button) show(button, TERMS[button.dataset.term]);
  });
}
