// The Learn tab: a list of lessons; in each one predict, run, and compare what was said with what came out.

import { read, write } from "./address.js";
import { LESSONS, nearest } from "./learn_lessons.js";
import { explain, term } from "./playground_terms.js";
import { fillForm, fixed, h, isAnswer, Refusal, swatch } from "./util.js";

const KEPT = "ranklab-lessons";
const PATIENCE = 30; // seconds of training after which the finished comparison is offered

/** What this browser remembers: lesson -> {said, near, of}. A browser that keeps nothing forgets. */
const memory = {
  read() {
    try {
      const found = Object.entries(JSON.parse(localStorage.getItem(KEPT)) ?? {});
      return Object.fromEntries(found.filter(([, kept]) => Number.isInteger(kept?.near) && Number.isInteger(kept.of)));
    } catch {
      return {};
    }
  },
  write(value) {
    try {
      localStorage.setItem(KEPT, JSON.stringify(value));
      return true;
    } catch {
      return false;
    }
  },
};

class Learn {
  constructor(root) {
    this.find = (selector) => root.querySelector(selector);
    this.done = memory.read();
    this.keeps = true;
    explain(root);
    this.find(".ln-forget").addEventListener("click", () => this.forget());
    document.addEventListener("ranklab-address", ({ detail }) => detail.tab === "learn" && detail.lesson && detail.lesson !== this.lesson.id && this.open(detail.lesson));
    this.open(read().lesson);
  }

  open(id, byHand = false) {
    this.abort?.abort();
    this.lesson = LESSONS.find((lesson) => lesson.id === id) ?? LESSONS.find((lesson) => !this.done[lesson.id]) ?? LESSONS[0];
    write({ lesson: this.lesson.id });
    this.drawList();
    this.drawLesson();
    if (byHand) this.find(".ln-title").focus();
  }

  forget() {
    this.done = {};
    this.keeps = memory.write(this.done);
    this.open(this.lesson.id, true);
  }

  // --- the list ---

  drawList() {
    const entry = (lesson, place) => {
      const kept = this.done[lesson.id];
      const state = kept ? `done: ${kept.near} of ${kept.of} as predicted` : "not done";
      const button = h("button", { type: "button", "data-lesson": lesson.id, "aria-current": lesson === this.lesson ? "step" : null, onclick: () => this.open(lesson.id, true) }, h("span.ln-tick", { "aria-hidden": "true" }, kept ? "✓" : String(place + 1)), h("span", {}, lesson.title, h("span.rl-sub", {}, state)));
      return h("li", {}, button);
    };
    this.find(".ln-list").replaceChildren(...LESSONS.map(entry));
    const count = LESSONS.filter((lesson) => this.done[lesson.id]).length;
    this.find(".ln-kept").textContent = this.keeps ? `${count} of ${LESSONS.length} done. Kept in this browser alone.` : "This browser keeps nothing; predictions are forgotten on reload.";
    this.find(".ln-forget").hidden = !count;
  }

  // --- a lesson ---

  drawLesson() {
    const { lesson } = this, place = LESSONS.indexOf(lesson);
    this.form = h("form.ln-form", { novalidate: true }, lesson.questions.map((question, number) => this.question(question, number)));
    this.problem = h("p.rl-error", { role: "alert" });
    this.go = h("button.rl-big", { type: "submit" }, lesson.trains ? "Predict and train" : "Predict and run");
    this.form.append(this.problem, this.go);
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.predict();
    });
    this.status = h("p.ln-status", { role: "status" });
    this.meter = h("progress", { max: "1", value: "0", hidden: true, "aria-label": "Progress of the run" });
    this.instead = h("button.rl-button.rl-small", { type: "button", hidden: true, onclick: () => this.run(lesson.instead) }, "Use the finished comparison that is shipped instead");
    this.result = h("section.ln-result", { hidden: true, "aria-label": "What came out" });
    const settings = h("dl.ln-settings", {}, lesson.settings.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, String(value)))));
    this.find(".ln-lesson").replaceChildren(
      h("p.rl-sub", {}, `Lesson ${place + 1} of ${LESSONS.length}`),
      h("h3.ln-title", { tabindex: "-1" }, lesson.title), ...lesson.text.map((sentence) => h("p", {}, sentence)),
      h("div.ln-set", {}, h("h4", {}, "What this lesson sets"), settings, this.opener()),
      h("h4", {}, "Your prediction"), this.form, this.status, this.meter, this.instead, this.result);
    const kept = this.done[lesson.id];
    if (kept) this.status.textContent = `You did this lesson before: ${kept.near} of ${kept.of} as predicted. Predict again to run it again.`;
  }

  question({ id, ask, options }, number) {
    const choice = ({ value, text }) => h("label", {}, h("input", { type: "radio", name: id, value: String(value) }), h("span", {}, text));
    return h("fieldset.ln-question", { "data-question": id }, h("legend", {}, `${number + 1}. ${ask}`), h("div.ln-options", {}, options.map(choice)));
  }

  /** The same settings in the tab that they belong to. */
  opener() {
    const { place } = this.lesson;
    const text = place.tab === "compare" ? "Put these into the Compare form" : "Open these in the Rank playground";
    return h("button.rl-button.rl-small.ln-open", { type: "button", onclick: () => this.leave(place) }, text);
  }

  leave({ tab, words = {}, form }) {
    if (form) fillForm(form);
    window.ranklab.go(tab, words);
  }

  predict() {
    const said = {};
    const missing = this.lesson.questions.filter(({ id, options }) => {
      const text = new FormData(this.form).get(id);
      if (text !== null) said[id] = options.find(({ value }) => String(value) === text)?.value;
      return text === null;
    });
    this.problem.textContent = missing.length ? `Predict first: ${missing.length === 1 ? "one question is" : `${missing.length} questions are`} open.` : "";
    if (missing.length) return this.form.querySelector(`[name="${missing[0].id}"]`).focus();
    this.said = said;
    write(this.lesson.place.words ?? {});
    this.run(this.lesson.run);
  }

  async run(work) {
    this.abort?.abort();
    const abort = this.abort = new AbortController(), { lesson, said } = this, begin = performance.now();
    this.busy(true);
    this.status.textContent = lesson.trains ? "Training. This may take half a minute, longer while others train here." : "Computing. The first answer of a server that has just started takes some seconds longer.";
    const offer = lesson.instead && setTimeout(() => (this.instead.hidden = abort.signal.aborted), 1000 * PATIENCE);
    try {
      const found = await work(abort.signal, (share, note = "") => this.progress(abort, share, note));
      if (abort.signal.aborted) return;
      this.reveal(lesson, said, found, (performance.now() - begin) / 1000);
    } catch (error) {
      if (abort.signal.aborted) return;
      if (!isAnswer(error)) throw error;
      this.status.textContent = "";
      this.problem.textContent = error instanceof Refusal ? error.message : "The server does not answer; try again.";
      this.instead.hidden = !lesson.instead;
    } finally {
      clearTimeout(offer);
      if (this.abort === abort) this.busy(false);
    }
  }

  busy(running) {
    this.go.disabled = running;
    this.meter.hidden = !running;
    this.meter.value = 0;
    for (const fieldset of this.form.querySelectorAll("fieldset")) fieldset.disabled = running;
    if (running) this.instead.hidden = this.result.hidden = true;
  }

  progress(abort, share, note) {
    if (abort.signal.aborted) return;
    this.meter.value = share ?? 0;
    if (!note) return;
    this.status.textContent = note;
    this.instead.hidden = !this.lesson.instead;
  }

  // --- what came out ---

  reveal(lesson, said, found, seconds) {
    const rows = lesson.questions.map(({ id, ask, options, answer, said: told }) => {
      const value = answer(found), right = nearest(options, value) === said[id];
      return { ask, right, mine: options.find((option) => option.value === said[id]).text, came: told(value, found) };
    });
    const near = rows.filter((row) => row.right).length;
    this.done = { ...this.done, [lesson.id]: { said, near, of: rows.length } };
    this.keeps = memory.write(this.done);
    const title = h("h4", { tabindex: "-1" }, `What came out: ${near} of ${rows.length} as predicted`);
    const verdict = ({ ask, right, mine, came }) => h("li", { class: right ? "ln-right" : "ln-other" }, h("p", {}, ask), h("p", {}, h("span.ln-verdict", {}, right ? "✓ as predicted" : "≠ otherwise"), ` You said ${mine}. It came out: `, h("strong", {}, came), "."));
    this.result.replaceChildren(...[
      title, h("ol.ln-verdicts", {}, rows.map(verdict)), lesson.bars ? this.bars(lesson.bars(found)) : null,
      ...lesson.after(found).map((sentence) => h("p", {}, sentence)),
      h("div.ln-next", {}, this.following(lesson), lesson.more ? this.further(lesson.more(found)) : null),
      h("p.rl-sub", {}, `From the server in ${fixed(seconds, 1)} s.`),
    ].filter(Boolean));
    this.result.hidden = false;
    this.status.textContent = "";
    this.drawList();
    title.focus();
  }

  bars(rows) {
    const line = ({ name, share, value, best, look }) => {
      const track = h("span.ln-track", {}, h("i"), h("b", { title: `the most at this rank: ${fixed(best)}` }));
      track.firstChild.style.background = look.colour;
      track.firstChild.style.width = `${100 * Math.min(1, Math.max(0, share))}%`;
      track.lastChild.style.left = `calc(${100 * Math.min(1, best)}% - 2px)`;
      return h("li", {}, h("span.ln-name", {}, swatch(look), h("span", {}, name)), track, h("span", {}, value, h("span.rl-sr", {}, ` captured, at most ${fixed(best)} at its rank`)));
    };
    return h("div", {}, h("p.rl-sub", {}, "Share captured ", term("captured"), "; the mark is the most at that rank ", term("optimum")), h("ul.ln-bars", { "aria-label": "Share captured" }, rows.map(line)));
  }

  following(lesson) {
    const next = LESSONS[LESSONS.indexOf(lesson) + 1];
    return next ? h("button.rl-big", { type: "button", onclick: () => this.open(next.id, true) }, `Next: ${next.title}`) : h("p", {}, "That was the last lesson.");
  }

  further(more) {
    return h("button.rl-button", { type: "button", onclick: () => this.leave(more) }, more.text);
  }
}

export function mount(element) {
  new Learn(element.querySelector(".rl"));
}
