// "What is this?": every figure's definition and source, in a popover.

import { h } from "./util.js";

const OF = "mean over the adapted layers and the seeds. Of the weight update ΔW; for adapters and prefixes of their linear map, for BitFit of the update of a bias.";
const SQUAD = "Rajpurkar et al. 2016, SQuAD";

const DEFINITIONS = {
  accuracy: ["Accuracy", "Share of the evaluation rows whose class is right.", ""],
  f1: ["F1", "Harmonic mean of precision and recall of class 1; 0 where no row is, or is called, class 1.", "van Rijsbergen 1979"],
  matthews_correlation: ["Matthews correlation", "Correlation of predicted and true classes, from −1 to 1; 0 for a constant prediction.", "Matthews 1975; Gorodkin 2004 for more than two classes"],
  pearson: ["Pearson correlation", "Linear correlation of predicted and true values, a mean over outputs; undefined where one side does not vary.", "Pearson 1895"],
  spearman: ["Spearman correlation", "Correlation of the ranks of predicted and true values, a mean over outputs.", "Spearman 1904"],
  pearson_spearman_mean: ["Pearson and Spearman, mean", "The mean of the two correlations, as the papers print it for STS-B.", "GLUE, Wang et al. 2019"],
  average: ["Average", "The mean over the paper's tasks, as it prints it.", "the table named in the row"],
  r2: ["R²", "Explained share of the variance of the true values, a mean over outputs; 0 is what their mean gives, and it has no lower bound.", "Wright 1921"],
  exact_match: ["Exact match", "Share of rows whose answer is one of the right ones, without case, punctuation and articles.", SQUAD],
  qa_f1: ["F1 over words", "Harmonic mean of precision and recall of an answer's words, the best of a row's right answers, a mean over rows.", SQUAD],
  bleu: ["BLEU", "Precision of word 1- to 4-grams over the whole corpus with a penalty for short output, from 0 to 1.", "Papineni et al. 2002, as sacrebleu computes it (Post 2018)"],
  chrf: ["chrF", "F score of character n-grams, recall counted twice, from 0 to 1.", "Popović 2015, as sacrebleu computes it"],
  rouge1: ["ROUGE-1", "F score of the words in common with the reference.", "Lin 2004"],
  rouge2: ["ROUGE-2", "F score of the word pairs in common with the reference.", "Lin 2004"],
  rouge_l: ["ROUGE-L", "F score of the longest common subsequence of words with the reference.", "Lin 2004"],
  score: ["Score", "The task's first metric on the evaluation rows; the mean over seeds, ± the standard deviation over them (n − 1). \"So far\": the last evaluation of runs that have not finished.", "the task's own metric"],
  loss: ["Training loss", "The task's loss on each batch: cross-entropy of classes or tokens, or the mean squared error of numbers; a method's own penalty is left out. Smoothed by an exponential mean that is corrected for its start.", "Kingma and Ba 2015 for the correction"],
  effective_rank: ["Effective rank", `exp of the entropy of the singular values over their sum: how many directions carry the update; ${OF}`, "Roy and Vetterli 2007"],
  numerical_rank: ["Numerical rank", `Number of singular values above max(m, n) · ε · σ_max with the ε of float64; ${OF}`, "Golub and Van Loan, Matrix Computations; as torch.linalg.matrix_rank counts"],
  stable_rank: ["Stable rank", `Squared Frobenius norm over squared spectral norm, never above the rank; ${OF}`, "Rudelson and Vershynin 2007"],
  layer_rank: ["Rank by layer", "The chosen rank measure of each adapted map of each layer at one step, a mean over seeds. All methods share one scale, from 0 to the largest value of all steps.", "the measures are those of the rank chart"],
  spectrum: ["Singular values", "Of the weight update (for adapters and prefixes of their linear map), largest first; a mean over the adapted maps, or of one, and over seeds. Recorded at the last evaluation and at each best one; zeros do not show on the log axis.", "Golub and Van Loan, Matrix Computations"],
  pareto: ["Pareto front", "The methods that no other one beats on both figures at once; filled marks are on the front. Means over seeds.", "Pareto 1896"],
  trainable: ["Trainable parameters", "Values that are trained, with the task's head left out, since every method trains the same one.", "counted from the modules"],
  trainable_percent: ["Trainable share", "Trainable parameters, head left out, in percent of the backbone's parameters.", "counted from the modules"],
  active: ["Active parameters", "Trainable parameters in use at the last step, head left out: methods that prune or grow change them while they train.", "counted at every step"],
  nominal: ["FLOPs, nominal", "The adapter's own operations by formula for every token, with only the non-zero weights of masked matrices counted: what sparse kernels could reach.", "CapaBoost's way of counting (Song et al. 2024)"],
  executed: ["FLOPs, executed", "The adapter's own operations as they ran here: masked matrices are multiplied whole, and where only the first token is read of a model's last layer, the other tokens' operations there are left out. So a method without masks can lie below its nominal figure.", "counted while it runs"],
  vs_lora: ["Against LoRA", "Nominal FLOPs of the adapter over those of LoRA at the same rank on the same layers.", "Hu et al. 2022, LoRA"],
  stored: ["Stored bytes", "Size of the adapter's file, head left out. Random masks are stored as a seed, not as values.", "measured on the disk"],
  bit_level: ["Bit-level storage", "Bits that a task adds to the backbone, in percent of a fully fine-tuned model's: 32 for a value, 1 for a place in a mask.", "ProPETL (Zeng et al. 2023), appendix B"],
  time: ["Training time", "Wall clock of the training steps, a mean over seeds, evaluations left out, on the device that is named with them.", "measured"],
  step_time: ["Time of a step", "Median over the steps, in milliseconds; the first ones are left out.", "measured"],
  memory: ["Peak memory", "Most memory in use while the method's runs had their turns, on the device that is named with them.", "measured"],
  n: ["n", "Seeds with a defined score. Each seed draws the start of the adapter and head and the order of the batches.", "counted"],
  difference: ["Paired difference", "Mean over seeds of this method's score less the reference's at the same seed, with its 95 % interval by Student's t; with one seed the interval is a bootstrap over the evaluation rows.", "Student 1908; Efron 1979"],
  p_value: ["p (Holm)", "Two-sided sign-flip permutation test on the paired differences of six seeds or more; in parentheses corrected for the number of methods.", "Fisher 1935; Holm 1979"],
  mean_score: ["Mean score", "Of tasks that are trained together: the mean of each task's first metric.", "the tasks' own metrics"],
  steps: ["Steps", "Optimizer steps of the whole run: one batch each, or several that are added up.", "counted"],
  learning_rate: ["Learning rate", "The highest rate of the run's schedule, which rises over the warm-up and then falls to zero. Each method has a default of its own.", "the run's frozen config"],
  device: ["Device", "The machine part that the run was trained on; its times and its memory are figures of it.", "asked of the machine"],
  baseline: ["Over the baseline", "The score less that of the best constant answer on the same evaluation rows: what was learned at all.", "computed from the evaluation rows"],
  confidence: ["Confidence", "The model's own probability of each class, a softmax of its logits, in percent. It was trained to be right, not to know how sure it can be: a confident answer can be wrong.", "Guo et al. 2017, on calibration"],
  predicted: ["Predicted number", "The model's answer in the task's own unit. The dot shows it among the training rows: from three of their standard deviations below their mean to three above.", "mean and deviation of the training rows"],
  span_score: ["Score of an answer", "The logit of the answer's first word piece plus that of its last. It orders answers to one question; it is no probability.", "Devlin et al. 2019, BERT"],
  apart: ["Apart", "How far the methods disagree on a row: how many do not give the commonest answer, or for numbers the largest difference in standard deviations of the training targets.", "counted over the evaluation rows"],
  quoted: ["Quoted figure", "As a paper prints it, with its spread where it prints one. Nobody checked it here, and its model, data and machine are the paper's.", "the table named in the row"],
  measured: ["Measured figure", "The task's first metric on the evaluation rows of this project's own runs: the mean over n seeds, ± the standard deviation over them (n − 1).", "this project's runs, shipped as data"],
  state: ["State", "Of this method's runs: queued, running, stopping, finished, failed, cancelled or interrupted.", "the store of runs"],
};

export const defined = (key) => key in DEFINITIONS;

/** A button that opens a figure's definition. text: what it shows; without it a question mark. */
export function what(key, text = null) {
  const [title] = DEFINITIONS[key];
  const button = h(text ? "button.rl-term" : "button.rl-ask", { type: "button", "data-what": key, "aria-haspopup": "dialog", "aria-label": text ? null : `What is this: ${title}` }, text ?? "?");
  button.addEventListener("click", () => open(button, key));
  return button;
}

/** The name of the definition of a rank measure or metric, the latter without the task in front of it. */
export const keyOf = (name) => [name, name?.split(".").at(-1), "score"].find((key) => key && defined(key));

const open = (button, key) => show(button, DEFINITIONS[key]);

/** A popover at a button, with a title, a text and its source. */
export function show(button, [title, text, source]) {
  const root = button.closest(".rl");
  root.querySelector(":scope > .rl-define")?.remove();
  const box = h("div.rl-define", { popover: "auto", role: "dialog", "aria-label": title, tabindex: "-1" },
    h("strong", {}, title), h("p", {}, text), source ? h("p.rl-sub", {}, `Source: ${source}.`) : null);
  box.addEventListener("toggle", (event) => event.newState === "closed" && box.remove());
  root.append(box);
  box.showPopover();
  const from = button.getBoundingClientRect();
  const left = Math.max(8, Math.min(from.left, window.innerWidth - box.offsetWidth - 8));
  const below = from.bottom + 6 + box.offsetHeight <= window.innerHeight;
  box.style.left = `${left}px`;
  box.style.top = `${below ? from.bottom + 6 : Math.max(8, from.top - 6 - box.offsetHeight)}px`;
  box.focus();
}
