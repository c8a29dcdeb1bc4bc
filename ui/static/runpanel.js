// One run of the list: figures, settings, notes; export, push, resume, delete.

import { keyOf, what } from "./define.js";
import { ended, pusher } from "./push.js";
import { bytes, duration, fillForm, fixed, get, h, has, isAnswer, post, Refusal, short, signed, whole, words } from "./util.js";

const KINDS = { native: "native: the smallest, for this project", peft: "peft: a LoRA folder of Hugging Face PEFT", merged: "merged: a whole model" };

export class RunPanel {
  constructor(root, onChange) {
    this.root = root;
    this.onChange = onChange;
    this.run = null;
  }

  async open(run) {
    this.run = run;
    try {
      const found = await get("runs/run", { id: run });
      if (this.run === run) this.draw(found);
    } catch (error) {
      this.root.replaceChildren(h("p.rl-problem", {}, error instanceof Refusal ? error.message : "The server does not answer."));
      if (!isAnswer(error)) throw error;
    }
  }

  draw(found) {
    this.said = h("p.rl-sub.rl-said", { role: "status" });
    this.root.replaceChildren(...[
      h("h3", {}, `${found.label}, seed ${found.seed}`),
      h("p.rl-sub", {}, `${found.run} · ${found.state} · ${found.title}`),
      found.error ? h("p.rl-problem", {}, found.error) : null,
      this.actions(found),
      this.exporter(found),
      pusher(found, KINDS),
      this.said,
      figures(found),
      this.note(found, found.run, found.note, "Note on this run"),
      this.note(found, found.comparison, found.comparison_note, `Note on its comparison (${found.runs} run${found.runs === 1 ? "" : "s"})`),
      config(found),
    ].filter(Boolean));
  }

  actions(found) {
    const show = h("button.rl-button.rl-small", { type: "button", onclick: () => window.ranklab.go("compare", { c: found.comparison }) }, "Show its comparison");
    const report = h("a", { href: `ranklab/download?${new URLSearchParams({ id: found.comparison, format: "html" })}`, download: "" }, "Report");
    const learned = learnedRanks(found) ? h("button.rl-button.rl-small.rl-learned", { type: "button", title: "Fills the form of the Compare tab: this method beside LoRA with the rank that it learned for each map", onclick: () => this.act(() => this.retrain(found)) }, "Train LoRA at its ranks") : null;
    const resume = found.resumable ? h("button.rl-button.rl-small", { type: "button", onclick: () => this.act(() => post("resume", { id: found.run }), "Queued again; it goes on from its last checkpoint.") }, "Resume") : null;
    return h("div.rl-row-of", {}, show, resume, learned, ...(found.fixed ? [] : [report, this.remover(found)]));
  }

  /** Its comparison's form, with its own method and LoRA of the ranks that it has learned. */
  async retrain(found) {
    const { form, labels, spec } = await get("view", { id: found.comparison });
    const { id, options } = spec.methods[labels.findIndex((look) => look.label === found.label)];
    const own = { id, options: Object.fromEntries(Object.entries(options).map(([name, value]) => [name, String(value)])) };
    fillForm({ ...form, methods: [own, { id: "lora", options: { rank_pattern: found.run } }], lock: "", lock_to: "" });
    window.ranklab.go("compare");
    document.querySelector(".rl-formbox")?.scrollIntoView({ block: "start" });
  }

  remover(found) {
    const what = found.runs === 1 ? "Delete" : `Delete its comparison (${found.runs} runs)`;
    const remove = h("button.rl-button.rl-small.rl-remove", { type: "button" }, what);
    remove.addEventListener("click", () => this.act(async () => {
      await post("runs/delete", { id: found.comparison });
      this.run = null;
      this.root.replaceChildren(h("p.rl-sub", { role: "status" }, `Deleted. "Undo" is above the list.`));
    }));
    return remove;
  }

  async act(action, done = "") {
    try {
      await action();
      this.said.textContent = done;
      this.onChange();
    } catch (error) {
      this.said.textContent = error instanceof Refusal ? error.message : "The server does not answer.";
      if (!isAnswer(error)) throw error;
    }
  }

  // --- notes ---

  note(found, id, text, title) {
    const box = h("textarea", { maxlength: "2000", rows: "2", "data-note": id, value: text, readonly: found.fixed });
    const state = h("span.rl-sub", { "aria-live": "polite" });
    let kept = text;
    const keep = async () => {
      if (box.value === kept) return;
      const wanted = box.value;
      try {
        await post("runs/note", { id, text: wanted });
        kept = wanted;
        state.textContent = "kept";
        this.onChange();
      } catch (error) {
        state.textContent = error instanceof Refusal ? error.message : "not kept: the server does not answer";
        if (!isAnswer(error)) throw error;
      }
    };
    box.addEventListener("input", () => {
      state.textContent = "";
      clearTimeout(this.typing);
      this.typing = setTimeout(keep, 600);
    });
    box.addEventListener("change", keep);
    return h("label", {}, h("span", {}, title, " ", state), box);
  }

  // --- export ---

  exporter(found) {
    if (!found.formats.length) return null;
    const kind = h("select", { "aria-label": "Format" }, found.formats.map((name) => h("option", { value: name }, KINDS[name])));
    const start = h("button.rl-button.rl-small", { type: "button" }, "Export");
    const state = h("span.rl-exported", { role: "status" });
    start.addEventListener("click", () => this.export(found.run, kind.value, start, state));
    return h("div.rl-row-of", {}, kind, start, state);
  }

  async export(run, kind, button, state) {
    button.disabled = true;
    state.textContent = "being made; the page can be used meanwhile";
    try {
      const { job } = await post("runs/export", { id: run, format: kind });
      await ended("runs/exported", job);
      const link = h("a", { href: `ranklab/runs/archive?${new URLSearchParams({ job })}`, download: "" }, `Download ${kind}.zip`);
      state.replaceChildren(link);
      link.click();
    } catch (error) {
      state.textContent = error instanceof Refusal ? error.message : "The server does not answer.";
      if (!isAnswer(error)) throw error;
    } finally {
      button.disabled = false;
    }
  }
}

/** Whether it ended with other ranks in one map than in another, as methods do that give ranks out while they train. */
const learnedRanks = ({ state, result }) => state === "finished" && result?.rank_of === "delta" && result.rank.numerical_max > result.rank.numerical_mean;

function figures({ result, metric }) {
  if (!result) return null;
  const scores = Object.entries(result.score).sort(([a], [b]) => (b === metric) - (a === metric));
  const entries = [
    ...scores.map(([name, value]) => [words(name).replace(".", ": "), fixed(value), keyOf(name)]),
    ["effective rank", fixed(result.rank?.effective_mean, 2), "effective_rank"],
    ["numerical rank", fixed(result.rank?.numerical_mean, 1), "numerical_rank"],
    ["trainable", whole(result.trainable), "trainable"],
    ["stored", bytes(result.stored_bytes), "stored"],
    ["FLOPs nominal", short(result.adapter_flops_nominal), "nominal"],
    ["FLOPs executed", short(result.adapter_flops_executed), "executed"],
    ["time", duration(result.seconds), "time"],
    ["steps", whole(result.steps), "steps"],
    ["learning rate", String(result.learning_rate), "learning_rate"],
    ["device", result.device_name ?? "–", "device"],
    has(result.baseline_score) ? ["over baseline", signed(result.score[metric] - result.baseline_score), "baseline"] : null,
  ].filter(Boolean);
  return h("dl.rl-figures", {}, entries.map(([name, value, key]) => h("div", {}, h("dt", {}, what(key, name)), h("dd", {}, value))));
}

function config(found) {
  return h("details", {}, h("summary", {}, "What ran: every option and the environment"), h("pre", { tabindex: "0" }, JSON.stringify({ method: found.config, environment: found.environment }, null, 2)));
}
