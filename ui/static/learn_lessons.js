// The lessons: what each one sets, says and asks, and how its questions are answered by what is computed.
// A result is nowhere written down here; `answer` and `after` make it from what the server found.

import { draws, finished, fit, sketch, train } from "./learn_runs.js";
import { fixed, has, signed, whole, words } from "./util.js";

const percent = (share, digits = 1) => `${fixed(100 * share, digits)} %`;
const LAYER = { out_features: 64, in_features: 64, seed: 0 };
const ONE = { ...LAYER, rank: 4, d: 1, sparsity: 0, masks: "none", sides: "both" };
const TWO = { ...LAYER, rank: 8, d: 2, sparsity: 0.5, masks: "random", sides: "both" };
const PLAIN = { rank: 6, d: 1, sparsity: 0, masks: "random" }, BOOSTED = { rank: 8, d: 2, sparsity: 0.5, masks: "random" };
const LIMITED = [{ ...PLAIN, rank: 8 }, { ...PLAIN, rank: 16 }];
const TARGETS = [
  ["flat", "16 directions, all of the same size", "flat"],
  ["decay", "a few strong directions and a long tail: the i-th has size 1/i", "decaying"],
  ["gaussian", "every value drawn at random: all 128 directions matter", "Gaussian"],
];
const TIE = 0.01; // of the share captured
const FLAT = { target: "flat", target_rank: 16, size: 128, seed: 0 };
const FORM = {
  model: "tiny-text", task: "acceptability", task_options: {}, seeds: "0, 1", eval_rows: "200", lock: "", lock_to: "", training: { steps: "40" },
  methods: [{ id: "lora", options: { rank: "4" } }, { id: "capaboost_lora", options: { rank: "4", d: "2", sparsity: "0.5" } }],
};

/** A pair's word of the address, as the Rank playground reads it. */
const word = ({ rank, d, sparsity, masks, out_features, in_features }) => `d=${d};r=${rank};s=${sparsity};masks=${masks};out=${out_features};in=${in_features}`;
const fitWord = (target, pairs) => [target, ...pairs.map(({ rank, d, sparsity, masks }) => [rank, d, sparsity, masks].join(","))].join("|");
const pairSettings = ({ rank, d, sparsity, masks, out_features, in_features }) => [["layer", `${out_features} × ${in_features}`], ["r", rank], ["branches d", d], ["masks", masks === "none" ? "none" : `${masks}, s = ${sparsity}`]];
const choices = (values, text = String) => values.map((value) => ({ value, text: text(value) }));
const about = (share) => `about ${fixed(100 * share, 0)} %`;
const bars = (rows) => rows.map((row) => ({ name: row.label, share: row.captured, value: fixed(row.captured), best: row.best, look: row.look }));

export const LESSONS = [
  {
    id: "low-rank",
    title: "Low rank",
    text: [
      "Fine-tuning changes a frozen weight W by an update ΔW. LoRA does not train ΔW itself. It trains two thin matrices, B with r columns and A with r rows, and takes their product: ΔW = B·A.",
      `Take a layer of ${ONE.out_features} × ${ONE.in_features} = ${whole(ONE.out_features * ONE.in_features)} values and r = ${ONE.rank}, and let the server draw B and A at random.`,
    ],
    settings: pairSettings(ONE),
    place: { tab: "playground", words: { p: word(ONE) } },
    questions: [
      { id: "rank", ask: "The rank of a matrix is the number of independent directions in it. Which rank has ΔW?", options: choices([1, 4, 16, 64]), answer: (found) => found.rank.numerical, said: (value) => `rank ${value}` },
      { id: "share", ask: "How many numbers are in A and B together, compared with ΔW?", options: choices([0.03, 0.12, 0.25, 0.5], about), answer: (found) => found.parameters.kept / found.parameters.layer, said: (value) => percent(value) },
    ],
    run: (signal) => sketch(ONE, signal),
    after: (found) => [
      `${whole(found.parameters.kept)} numbers are trained where ΔW has ${whole(found.parameters.layer)}.`,
      `Every column of B·A is a mixture of the ${found.used.rank} columns of B, so however they are trained there are never more than ${found.used.rank} directions. That is the whole bargain: few numbers, few directions.`,
    ],
  },
  {
    id: "limits",
    title: "Why rank limits",
    text: [
      "Suppose the update that a task needs is known: a matrix T of 128 × 128 with exactly 16 directions, all equally strong. The server now trains LoRA pairs to copy T, with real Adam steps.",
      "Captured means 1 − ‖ΔW − T‖² / ‖T‖²: 1 is a perfect copy, 0 is no better than no update.",
    ],
    settings: [["target", "flat, 16 directions, 128 × 128"], ["methods", "LoRA r = 8 and r = 16"]],
    place: { tab: "playground", words: { fit: fitWord("flat:16", LIMITED) } },
    questions: [
      { id: "half", ask: "How much of T can LoRA with r = 8 capture?", options: choices([0.1, 0.5, 0.75, 1], about), answer: (found) => found[0].captured, said: (value) => fixed(value) },
      { id: "whole", ask: "And with r = 16?", options: choices([0.5, 0.75, 0.9, 1], about), answer: (found) => found[1].captured, said: (value) => fixed(value) },
    ],
    run: (signal, progress) => fit({ ...FLAT, pairs: LIMITED }, signal, progress),
    bars,
    after: (found) => [
      `The mark on a bar is the most that any matrix of that rank can capture: ${fixed(found[0].best)} at rank 8. No training goes beyond it (Eckart and Young, 1936).`,
      "So a rank that is too low is a wall, but only where the task needs the missing directions. Whether a real task does is not known beforehand.",
    ],
  },
  {
    id: "masks",
    title: "Masks",
    text: [
      "CapaBoost adds up d branches. They share one pair of matrices, but each looks at it through a mask of its own, which sets a share s of the values to zero: ΔW is the sum of (B ∘ mask) · (A ∘ mask) over the branches.",
      `Here r = ${TWO.rank}, d = ${TWO.d} and s = ${TWO.sparsity}. First every branch gets random masks of its own, then both get the same.`,
    ],
    settings: pairSettings(TWO),
    place: { tab: "playground", words: { p: word(TWO) } },
    questions: [
      { id: "own", ask: "Each branch has masks of its own: which rank has the sum?", options: choices([4, 8, 16, 32]), answer: (found) => found.own.rank.numerical, said: (value) => `rank ${value}` },
      { id: "same", ask: "Both branches have the same masks: which rank then?", options: choices([4, 8, 16, 32]), answer: (found) => found.same.rank.numerical, said: (value) => `rank ${value}` },
    ],
    run: async (signal) => {
      const [own, same] = await Promise.all([sketch(TWO, signal), sketch({ ...TWO, masks: "same" }, signal)]);
      return { own, same, drawn: await draws(TWO, signal) };
    },
    after: ({ own, same, drawn }) => [
      `Masks of their own: ${own.why} Of ${drawn.draws} fresh draws, ${percent(drawn.share_equal)} have rank d·r = ${drawn.target}.`,
      `The same masks: ${same.why}`,
      "What raises the rank is that the branches see different parts of the same numbers, not that there are two of them.",
    ],
  },
  {
    id: "tied",
    title: "Tied weights",
    text: [
      "The branches have no numbers of their own. A value that both masks keep works in both branches at once: it is tied, and cannot be one thing here and another there. A value that no mask keeps is neither trained nor stored.",
      `The setting is that of the last lesson: r = ${TWO.rank}, d = ${TWO.d}, and each mask zeros half of the values, independently.`,
    ],
    settings: pairSettings(TWO),
    place: { tab: "playground", words: { p: word(TWO) } },
    questions: [
      { id: "kept", ask: "Which share of the values is kept by at least one of the two masks?", options: choices([0.25, 0.5, 0.75, 1], about), answer: (found) => found.parameters.kept / found.parameters.dense, said: (value) => percent(value) },
      { id: "equal", ask: "As many numbers as are kept: LoRA of which r has these?", options: choices([4, 6, 8, 16], (r) => `r = ${r}`), answer: (found) => found.parameters.equal_rank, said: (value) => `r = ${fixed(value, 2)}` },
    ],
    run: (signal) => sketch(TWO, signal),
    after: (found) => [
      `Two independent masks both drop a value with probability s² = ${TWO.sparsity ** TWO.d}, so the expected share is ${percent(found.survivors.A.expected)}.`,
      `The sum has rank ${found.rank.numerical} and costs as much as LoRA of r = ${fixed(found.parameters.equal_rank, 2)}. But rank ${found.rank.numerical} made of tied numbers is not rank ${found.rank.numerical} made of free ones: the next lesson asks what it can do.`,
    ],
  },
  {
    id: "fit",
    title: "Rank is not fit",
    text: [
      "Two methods with about as many numbers to train: LoRA with r = 6, of rank 6, and CapaBoost with r = 8, d = 2, s = 0.5, of rank 16. Both are fitted to three targets, 128 × 128 each.",
      "A higher rank allows more directions. Tied numbers allow less freedom within them. Which weighs more depends on the target.",
    ],
    settings: [["methods", "LoRA r = 6; CapaBoost r = 8, d = 2, s = 0.5"], ["targets", "flat of rank 16, decaying 1/i, Gaussian"]],
    place: { tab: "playground", words: { fit: fitWord("decay", [PLAIN, BOOSTED]) } },
    questions: TARGETS.map(([id, described, name]) => ({
      id, ask: `${name}: ${described}. Which one captures more?`,
      options: [{ value: "LoRA", text: "LoRA, rank 6" }, { value: "CapaBoost", text: "CapaBoost, rank 16" }, { value: "equal", text: `less than ${TIE} apart` }],
      answer: (found) => captures(found[id]),
      said: (_, found) => `LoRA ${fixed(found[id][0].captured)}, CapaBoost ${fixed(found[id][1].captured)}`,
    })),
    run: async (signal, progress) => {
      const found = {};
      for (const [place, [target]] of TARGETS.entries()) {
        const body = { ...FLAT, target, pairs: [PLAIN, BOOSTED] };
        found[target] = await fit(body, signal, (share) => progress((place + share) / TARGETS.length));
      }
      return found;
    },
    bars: (found) => TARGETS.flatMap(([id, , name]) => bars(found[id]).map((bar) => ({ ...bar, name: `${name}: ${bar.name}` }))),
    after: (found) => {
      const won = (which) => TARGETS.filter(([id]) => captures(found[id]) === which).map(([, , name]) => name);
      const parts = [["LoRA", "LoRA captured more"], ["CapaBoost", "CapaBoost captured more"], ["equal", "they are about equal"]].map(([which, said]) => (won(which).length ? `On the ${won(which).join(" and the ")} target ${said}.` : ""));
      const below = TARGETS.every(([id]) => found[id][1].captured < found[id][1].best - TIE);
      return [
        `${parts.filter(Boolean).join(" ")} That is one draw of masks; another seed moves the figures a little. The marks are the most that any matrix of that rank can capture.${below ? " LoRA's free numbers can reach theirs; CapaBoost ended below its own on every target, for its numbers are tied." : ""}`,
        "More rank is worth something where the target is spread over many directions, and costs something where a few directions carry most of it. Real training may be either. That is why this project measures instead of counting ranks: its own results, whichever way they fell, are on the Papers tab.",
      ];
    },
    more: () => ({ text: "What this project measured", tab: "papers", words: {} }),
  },
  {
    id: "charts",
    title: "Reading the charts",
    text: [
      `Now a real comparison, small enough to wait for: LoRA with r = 4 and CapaBoost with r = 4, d = 2, s = 0.5 on a small text model, ${FORM.training.steps} steps, two seeds each. Both methods see the same batches under the same seed, so their scores can be subtracted in pairs.`,
      "On the Compare tab a line is the mean over seeds and its band goes from the lowest to the highest seed. The table gives the paired difference with its 95 % interval: where the interval contains 0, these runs do not tell which method is better.",
    ],
    settings: [["model", FORM.model], ["task", FORM.task], ["methods", "LoRA r = 4; CapaBoost r = 4, d = 2, s = 0.5"], ["seeds", FORM.seeds], ["steps", FORM.training.steps]],
    place: { tab: "compare", form: FORM },
    trains: true,
    questions: [
      { id: "rank", ask: "On the rank chart, which line ends higher?", options: [{ value: 0, text: "LoRA's" }, { value: 1, text: "CapaBoost's" }, { value: 2, text: "both end at the same height" }], answer: ({ table }) => higher(table.map((row) => row.rank?.numerical_mean)), said: (_, { table }) => `LoRA ${fixed(table[0].rank?.numerical_mean, 1)}, CapaBoost ${fixed(table[1].rank?.numerical_mean, 1)}` },
      { id: "interval", ask: "CapaBoost's score minus LoRA's, over two seeds: where is its 95 % interval?", options: [{ value: "above", text: "all above 0: CapaBoost is better" }, { value: "below", text: "all below 0: LoRA is better" }, { value: "across", text: "it contains 0: not decided" }], answer: ({ table }) => side(table[1].versus?.ci95), said: (_, { table }) => interval(table[1].versus) },
    ],
    run: (signal, progress) => train(FORM, signal, progress),
    instead: () => finished("example"),
    after: ({ table, environment, shipped, metric, spec }) => [
      `${words(metric)}: ${table.map((row) => `${row.label} ${fixed(row.mean)}${has(row.std) ? ` ± ${fixed(row.std)}` : ""} (n = ${row.n})`).join("; ")}. ${shipped ? "The finished comparison that is shipped, measured" : "Trained now"} on ${environment.device_name || environment.device || "this machine"}, seeds ${spec.seeds.join(", ")}.`,
      "Two seeds have one degree of freedom, and by Student's t their interval reaches almost 13 standard errors to either side. A narrow band of two seeds proves little; more seeds are the remedy, not more decimals.",
      "A line that ends higher on the rank chart says that more directions are in use. It does not say that the score is better: compare the two answers above.",
    ],
    more: ({ id }) => ({ text: "See its charts on the Compare tab", tab: "compare", words: { c: id } }),
  },
];

const captures = ([plain, boosted]) => (Math.abs(boosted.captured - plain.captured) < TIE ? "equal" : boosted.captured > plain.captured ? "CapaBoost" : "LoRA");
const higher = ([first, second]) => (first === second ? 2 : second > first ? 1 : 0);
const side = (range) => (!range ? "undefined" : range[0] > 0 ? "above" : range[1] < 0 ? "below" : "across");
const interval = (versus) => (versus?.ci95 ? `${signed(versus.mean_difference)}, interval from ${signed(versus.ci95[0])} to ${signed(versus.ci95[1])}` : "no interval: a score is undefined");

/** The option that an answer is nearest to; a word's is the word itself. */
export function nearest(options, answer) {
  if (typeof answer !== "number") return answer;
  return options.reduce((best, { value }) => (Math.abs(value - answer) < Math.abs(best - answer) ? value : best), options[0].value);
}
