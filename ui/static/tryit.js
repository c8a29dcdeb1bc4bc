// The Try it tab: which comparison is asked, the question, the answers of all its methods, the rows they disagree on.

import * as address from "./address.js";
import { card } from "./answers.js";
import { Asking } from "./asking.js";
import { Differ } from "./differ.js";
import { get, h, isAnswer, post, reached, read, Refusal } from "./util.js";

const AGAIN = 3000; // milliseconds between looks while nothing has finished yet
const VISITOR = crypto.getRandomValues(new Uint32Array(3)).join("-").slice(0, 40);

class Try {
  constructor(root) {
    this.root = root;
    this.find = (selector) => root.querySelector(selector);
    this.asking = new Asking(this.find(".rl-asking"), (question) => this.ask(question));
    this.differ = new Differ(this.find(".rl-differ"));
    this.turn = this.opened = 0;
    this.whom = {};
    this.listen();
  }

  listen() {
    this.find(".rl-to-compare").addEventListener("click", () => window.ranklab.go("compare"));
    this.find("[name=comparison]").addEventListener("change", (event) => this.choose({ comparison: event.target.value }));
    this.find("[name=task]").addEventListener("change", (event) => this.choose({ ...this.whom, task: event.target.value }));
    this.find("[name=seed]").addEventListener("change", (event) => this.choose({ ...this.whom, seed: event.target.value }));
    document.addEventListener("ranklab-address", ({ detail }) => detail.tab === "try" && this.open());
  }

  /** Called whenever the tab is shown: what has finished since is in the menu. */
  async open() {
    const found = address.read();
    clearTimeout(this.timer);
    try {
      const menu = await get("tryit/menu", { more: found.try ?? found.c ?? "" });
      this.say("");
      this.drawMenu(menu);
      const ids = menu.comparisons.map((entry) => entry.id);
      const wanted = [found.try, this.whom.comparison, found.c, ids[0]].find((id) => ids.includes(id));
      const open = found.try ?? found.c;
      this.instead(open && !ids.includes(open) ? open : "");
      if (wanted && wanted !== this.whom.comparison) this.choose({ comparison: wanted }, false);
      else if (wanted) this.find("[name=comparison]").value = wanted;
    } catch (error) {
      this.complain(error);
    }
  }

  /** Why another comparison answers than the one that is open elsewhere. */
  instead(open) {
    const why = open === "example" ? "The shipped example comes without its weights" : `The comparison ${open} has no weights here`;
    this.find(".rl-instead").textContent = open ? `${why}, so another one answers.` : "";
    this.find(".rl-instead").hidden = !open;
  }

  drawMenu(menu) {
    this.limits = menu;
    this.find(".rl-nothing").hidden = !menu.nothing;
    this.find(".rl-nothing p").textContent = menu.nothing;
    this.find(".rl-try-all").hidden = Boolean(menu.nothing);
    const name = (entry) => `${entry.title} (${entry.id}${entry.imported ? ", imported" : ""}${entry.state === "finished" ? "" : `, ${entry.state}`})`;
    this.find("[name=comparison]").replaceChildren(...menu.comparisons.map((entry) => h("option", { value: entry.id }, name(entry))));
    if (menu.live) this.timer = setTimeout(() => this.root.offsetParent && this.open(), AGAIN);
  }

  /** Ask this comparison from now on. */
  async choose(whom, byHand = true) {
    const turn = ++this.opened;
    this.turn += 1;
    this.whom = whom;
    this.about = null;
    this.find("[name=comparison]").value = whom.comparison;
    if (byHand) {
      address.write({ try: whom.comparison });
      this.instead("");
    }
    this.find(".rl-asking").replaceChildren(h("p.rl-sub", { role: "status" }, "Loading the models. The first time this takes some seconds."));
    this.find(".rl-answers").replaceChildren();
    this.find(".rl-answer-state").textContent = "";
    this.differ.root.hidden = true;
    try {
      const about = await get("tryit/described", whom);
      if (turn === this.opened) this.show(about);
    } catch (error) {
      if (turn !== this.opened) return;
      this.find(".rl-asking").replaceChildren(h("p.rl-problem", { role: "alert" }, error instanceof Refusal ? error.message : "The server does not answer."));
      if (!isAnswer(error)) throw error;
    }
  }

  show(about) {
    this.about = about;
    this.whom = { comparison: about.comparison, seed: about.seed, task: about.task };
    menu(this.find("[name=task]"), about.tasks, about.task);
    menu(this.find("[name=seed]"), about.seeds.map(String), String(about.seed));
    this.asking.draw(about, this.limits);
    this.drawAnswers([]);
    const missing = about.missing.length ? ` Not here with this seed: ${about.missing.join("; ")}.` : "";
    this.find(".rl-answer-state").textContent = `${about.runs.length} ${about.runs.length === 1 ? "method answers" : "methods answer"} here.${missing}`;
    this.differ.open(this.whom, about);
  }

  async ask(question) {
    const turn = ++this.turn;
    const { whom } = this;
    this.find(".rl-answers").setAttribute("aria-busy", "true");
    try {
      const found = question.input
        ? await post("tryit/ask", { ...whom, visitor: VISITOR, input: question.input })
        : await picture(question, whom);
      if (turn !== this.turn || found.late) return;
      this.drawAnswers(found.answers, question.input);
    } catch (error) {
      if (turn !== this.turn) return;
      this.asking.say(error instanceof Refusal ? error.message : "The server does not answer.");
      if (!isAnswer(error)) throw error;
    } finally {
      if (turn === this.turn) this.find(".rl-answers").removeAttribute("aria-busy");
    }
  }

  drawAnswers(answers, asked) {
    const found = new Map(answers.map((answer) => [answer.run, answer]));
    this.find(".rl-answers").replaceChildren(...this.about.runs.map((run) => card(run, found.get(run.run), this.about, asked)));
    if (answers.length) this.find(".rl-answer-state").textContent = summary(answers, this.about);
  }

  say(text) {
    const element = this.find(".rl-offline");
    element.textContent = text;
    element.hidden = !text;
  }

  complain(error) {
    this.say(error instanceof Refusal ? error.message : "The server does not answer.");
    if (!isAnswer(error)) throw error;
  }
}

async function picture({ picture: file, drawn }, whom) {
  const query = new URLSearchParams({ ...whom, visitor: VISITOR, drawn: drawn ? 1 : 0 });
  const request = { method: "POST", headers: { "Content-Type": "application/octet-stream" }, body: file };
  return read(await reached(fetch(`ranklab/tryit/picture?${query}`, request)));
}

function menu(select, values, chosen) {
  select.replaceChildren(...values.map((value) => h("option", { value }, value)));
  select.value = chosen;
  select.closest("label").hidden = values.length < 2;
}

/** In one sentence what the answers come to, for eyes and screen readers. */
function summary(answers, about) {
  const texts = answers.filter((answer) => !answer.error).map((answer) => answer.answer);
  if (about.problem === "regression" || texts.length < 2) return `${texts.length} ${texts.length === 1 ? "method has" : "methods have"} answered.`;
  const kinds = new Set(texts).size;
  return kinds === 1 ? `${texts.length === 2 ? "Both" : `All ${texts.length}`} methods give the same answer.` : `${texts.length} methods give ${kinds} different answers.`;
}

export function mount(element) {
  new Try(element.querySelector(".rl")).open();
}
