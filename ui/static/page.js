// The Compare tab: what is shown, the polling, the buttons. The server keeps everything; this page only reads it.

import { Cards, drawBars } from "./cards.js";
import { Chart } from "./charts.js";
import { Form } from "./form.js";
import { Points } from "./points.js";
import { Table } from "./table.js";
import { duration, get, h, has, post, read, Refusal, words } from "./util.js";

const LIVE = 700, RESTING = 5000; // milliseconds between polls
const RANK_TITLES = { effective: "effective rank", numerical: "numerical rank", stable: "stable rank" };
const FORMATS = { csv: "CSV", json: "JSON", md: "Markdown", tex: "LaTeX", html: "Report" };

class Page {
  constructor(root) {
    this.root = root;
    this.find = (selector) => root.querySelector(selector);
    this.shown = null;
    this.hidden = new Set();
    this.settings = { axis: "step", measure: "effective", smoothing: 0.8, log: false, paused: false };
    this.cards = new Cards(this.find(".rl-cards"), (label, hide) => this.toggle(label, hide));
    this.table = new Table(this.find(".rl-table"));
    this.form = new Form(this.find(".rl-form"), (form) => this.start(form));
    this.charts = {};
    for (const figure of root.querySelectorAll("[data-chart]")) this.charts[figure.dataset.chart] = new Chart(figure);
    this.listen();
  }

  async open() {
    if (window.matchMedia("(max-width: 820px)").matches) this.find(".rl-formbox").open = false;
    try {
      const first = window.ranklabFirst ? await read(await window.ranklabFirst) : await get("view");
      window.ranklabFirst = null;
      this.take(first);
    } catch (error) {
      this.complain(error);
      this.take(await get("view").catch(() => ({ id: null })));
    }
    await this.painted();
    this.refreshRecent();
    this.plan(LIVE);
    const from = this.shown ?? this.empty;
    this.form.open(from?.form, from?.looks ?? []).catch((error) => this.complain(error));
  }

  painted() {
    return new Promise((resolve) => requestAnimationFrame(() => setTimeout(resolve, 50)));
  }

  listen() {
    const on = (selector, event, action) => this.find(selector).addEventListener(event, action);
    on(".rl-again", "click", () => this.act(() => post("again", { id: this.shown.id }), true));
    on(".rl-stop", "click", () => this.act(() => post("stop", { id: this.shown.id })));
    on(".rl-resume", "click", () => this.act(() => post("resume", { id: this.shown.id })));
    on(".rl-recent", "change", (event) => this.show(event.target.value));
    on(".rl-axis", "change", (event) => this.setting({ axis: event.target.value }));
    on(".rl-measure", "change", (event) => this.setting({ measure: event.target.value }));
    on(".rl-smoothing", "input", (event) => this.setting({ smoothing: Number(event.target.value) }));
    on(".rl-log", "change", (event) => this.setting({ log: event.target.checked }));
    on(".rl-pause", "change", (event) => this.setting({ paused: event.target.checked }));
    on(".rl-reference", "change", () => this.refetchTable());
    on(".rl-copy", "click", () => navigator.clipboard?.writeText(this.find(".rl-command").textContent));
    document.addEventListener("visibilitychange", () => document.hidden || this.plan(0));
    new MutationObserver(() => this.draw()).observe(document.body, { attributes: true, attributeFilter: ["class"] });
    if (!window.Plotly) this.awaitPlotly();
  }

  awaitPlotly() {
    const timer = setInterval(() => {
      if (!window.Plotly) return;
      clearInterval(timer);
      this.draw();
    }, 30);
  }

  // --- reading ---

  plan(delay) {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.poll(), delay);
  }

  async poll() {
    if (document.hidden) return;
    try {
      if (this.shown?.id) {
        if (!this.shown.shipped) await this.more();
      } else this.take(await get("view"));
      this.offline("");
    } catch (error) {
      this.offline(error instanceof Refusal ? error.message : "The server does not answer; trying again.");
      if (!(error instanceof Refusal || error instanceof TypeError)) throw error;
    }
    this.plan(this.shown?.id && !this.shown.ended ? LIVE : RESTING);
  }

  async more() {
    const id = this.shown.id;
    const query = { id, after: this.shown.seq, reference: this.find(".rl-reference").value };
    const data = await get("view", query);
    if (this.shown.id === id && data.after === this.shown.seq) this.take(data);
  }

  async refetchTable() {
    const reference = this.find(".rl-reference").value;
    const data = await get("view", { id: this.shown.id, after: this.shown.seq, reference, table: 1 });
    this.shown.table = data.table;
    this.table.draw(this.shown);
    this.downloads();
  }

  /** An answer of the server: a whole comparison, or what came after the last answer. */
  take(data) {
    if (!data.id) {
      this.empty = data;
      this.find(".rl-meta").textContent = "Nothing has run here yet.";
      this.find(".rl-state").textContent = "empty";
      return;
    }
    const fresh = data.after === 0 && has(data.spec);
    if (fresh) {
      this.shown = { ...data, points: new Points(), trainable: new Map() };
      this.hidden = new Set([...this.hidden].filter((label) => data.labels.some((look) => look.label === label)));
      this.cards.build(data.labels, this.hidden);
    }
    const { points, table, ...rest } = data;
    const news = fresh || Object.keys(points).length > 0;
    const changed = fresh || rest.state !== this.shown.state;
    this.shown.points.merge(points);
    Object.assign(this.shown, rest, table ? { table } : {});
    if (fresh) this.fixedParts();
    this.status();
    if (changed && !fresh) this.refreshRecent();
    if (news || changed || table) this.draw();
  }

  async show(id) {
    try {
      this.take(await get("view", { id }));
      history.replaceState(null, "", `#c=${encodeURIComponent(id)}`);
      this.plan(LIVE);
    } catch (error) {
      this.complain(error);
    }
  }

  async refreshRecent() {
    const entries = await get("recent").catch(() => null);
    if (!entries) return;
    const select = this.find(".rl-recent");
    select.replaceChildren(...entries.map((entry) => h("option", { value: entry.id }, `${entry.title} (${entry.state})`)));
    if (this.shown) select.value = this.shown.id;
  }

  // --- acting ---

  async act(action, showsNew = false) {
    const button = this.find(".rl-again");
    button.disabled = true;
    this.complaint = "";
    try {
      const answer = await action();
      if (showsNew) await this.begin(answer.id);
      else this.plan(0);
    } catch (error) {
      this.complain(error);
    } finally {
      button.disabled = false;
    }
  }

  async start(form) {
    this.form.busy(true);
    this.form.clearErrors();
    try {
      const answer = await post("start", form);
      await this.begin(answer.id);
      this.find(".rl-shown").scrollIntoView({ block: "start" });
    } catch (error) {
      this.form.showErrors(error instanceof Refusal ? error.errors : [{ field: "", message: "The server does not answer." }]);
    } finally {
      this.form.busy(false);
    }
  }

  async begin(id) {
    await this.show(id);
    this.refreshRecent();
  }

  complain(error) {
    if (!(error instanceof Refusal || error instanceof TypeError)) throw error;
    this.complaint = error instanceof Refusal ? error.message : "The server does not answer; trying again.";
    this.message(this.complaint);
  }

  message(text) {
    const element = this.find(".rl-message");
    element.textContent = text ?? "";
    element.hidden = !text;
  }

  offline(text) {
    const element = this.find(".rl-offline");
    element.textContent = text;
    element.hidden = !text;
  }

  setting(change) {
    Object.assign(this.settings, change);
    this.draw();
  }

  toggle(label, hide) {
    if (hide) this.hidden.add(label);
    else this.hidden.delete(label);
    this.drawCharts();
  }

  // --- drawing ---

  fixedParts() {
    const { shown } = this;
    const select = this.find(".rl-recent");
    if (![...select.options].some((option) => option.value === shown.id)) select.prepend(h("option", { value: shown.id }, shown.title));
    select.value = shown.id;
    this.find(".rl-command").textContent = shown.command;
    this.find(".rl-reference").replaceChildren(...shown.labels.map((look) => h("option", { value: look.label }, look.label)));
    this.find('[data-chart="score"] .rl-title').textContent = words(shown.metric ?? "score");
    this.downloads();
  }

  downloads() {
    const reference = this.find(".rl-reference").value;
    const link = ([format, name]) => h("a", { href: `ranklab/download?${new URLSearchParams({ id: this.shown.id, format, reference })}`, download: "" }, name);
    this.find(".rl-downloads").replaceChildren(...Object.entries(FORMATS).map(link));
  }

  status() {
    const { shown } = this;
    const state = this.find(".rl-state");
    state.dataset.state = shown.state;
    state.textContent = shown.shipped ? "shipped example" : shown.queue_place && shown.state === "queued" ? `queued, place ${shown.queue_place}` : shown.state;
    this.find(".rl-meta").textContent = this.meta();
    const progress = this.find(".rl-progress");
    const percent = Math.round(100 * shown.progress);
    progress.hidden = shown.ended;
    progress.setAttribute("aria-valuenow", percent);
    progress.firstElementChild.style.width = `${percent}%`;
    this.find(".rl-again").hidden = !shown.ended;
    this.find(".rl-again").disabled = false;
    this.find(".rl-stop").hidden = shown.ended;
    this.find(".rl-stop").disabled = shown.state === "stopping";
    this.find(".rl-resume").hidden = shown.shipped || !["cancelled", "interrupted", "failed"].includes(shown.state);
    this.message(this.complaint || shown.message);
    this.find('[data-chart="score"] .rl-title').textContent = words(shown.metric ?? "score");
    this.find(".rl-frozen").replaceChildren(...frozen(shown));
  }

  meta() {
    const { shown } = this;
    const device = deviceOf(shown);
    const parts = [
      shown.shipped ? `measured on ${device}` : device ? `on ${device}` : "",
      `seeds ${shown.spec.seeds.join(", ")}`,
      shown.ended ? `${shown.created.slice(0, 16).replace("T", " ")} UTC` : `${Math.round(100 * shown.progress)} %`,
      !shown.ended && has(shown.eta_seconds) ? `about ${duration(shown.eta_seconds)} left` : "",
    ];
    return parts.filter(Boolean).join(" · ");
  }

  draw() {
    if (!this.shown) return;
    this.drawCharts();
    this.cards.update(this.shown);
    drawBars(this.find(".rl-bars"), this.shown);
    this.table.draw(this.shown);
    this.failures();
  }

  drawCharts() {
    if (this.settings.paused || !this.shown?.labels) return;
    const { shown, settings } = this;
    const [axis, revision] = [settings.axis, shown.id];
    const baseline = has(shown.baseline) ? [{ text: "baseline", y: shown.baseline }] : [];
    const metric = words(shown.metric ?? "score");
    const first = this.firstEvaluation();
    const job = (part, column, smoothing, guides, view) => ({ lines: this.lines(part, column, smoothing), guides, view: { axis, revision, ...view } });
    this.charts.score.draw(job("eval", "score", 0, baseline, { yTitle: metric, empty: this.waiting(first) }));
    this.charts.loss.draw(job("step", "loss", settings.smoothing, [], { yTitle: "loss", log: settings.log, empty: this.waiting("The first point comes at step 1.") }));
    this.charts.rank.draw(job("rank", settings.measure, 0, this.guides(), { yTitle: RANK_TITLES[settings.measure], tozero: true, empty: this.waiting(`The rank is measured at every evaluation, for methods that change weights by a low-rank update. ${first}`) }));
  }

  lines(part, column, smoothing) {
    return this.shown.labels.map((look) => {
      const runs = this.shown.runs.filter((run) => run.label === look.label).map((run) => run.run);
      const curve = this.shown.points.curve(runs, part, column, this.settings.axis, smoothing);
      return { look, curve, hidden: this.hidden.has(look.label) };
    });
  }

  guides() {
    const found = new Map();
    for (const look of this.shown.labels) {
      if (this.hidden.has(look.label)) continue;
      for (const [text, y] of Object.entries(this.shown.guides[look.label] ?? {})) found.set(text, y);
    }
    return [...found].map(([text, y]) => ({ text, y }));
  }

  firstEvaluation() {
    const next = this.shown.first_evaluation;
    return `The first point comes with the evaluation before the first step${has(next) ? `, the next at step ${next}` : ""}.`;
  }

  /** Why a chart is empty. */
  waiting(first) {
    const { shown } = this;
    if (shown.state === "queued") return shown.queue_place ? `Waiting in the queue, place ${shown.queue_place}. ${first}` : `Waiting to start. ${first}`;
    if (shown.state === "failed") return "Every run failed before its first point.";
    return shown.ended ? `Nothing was recorded: ${shown.state} before its first point.` : first;
  }

  failures() {
    const failed = this.shown.runs.filter((run) => run.error);
    const colour = (run) => this.shown.labels.find((look) => look.label === run.label)?.colour;
    this.find(".rl-failures").replaceChildren(...failed.map((run) => {
      const item = h("li", {}, h("strong", {}, `${run.label}, seed ${run.seed}, ${run.state}: `), run.error);
      item.style.borderColor = colour(run);
      return item;
    }));
  }
}

function deviceOf(shown) {
  const { device, device_name: name, threads, cores } = shown.environment;
  const kind = device || shown.plan.device || "";
  const count = kind === "cpu" ? shown.plan.threads || threads || cores : null;
  return [name || kind, name && kind ? `(${kind}${count ? `, ${count} threads` : ""})` : ""].filter(Boolean).join(" ");
}

function frozen(shown) {
  const configs = Object.fromEntries(shown.runs.map((run) => [run.label, run.config]));
  const parts = { comparison: shown.spec, "every option of each method": configs, plan: shown.plan, environment: shown.environment };
  return Object.entries(parts).map(([name, value]) => h("div", {}, h("h4", {}, name), h("pre", { tabindex: "0" }, JSON.stringify(value, null, 2))));
}

window.ranklab = {
  mount(element) {
    const root = element.querySelector(".rl");
    if (root.dataset.mounted) return;
    root.dataset.mounted = "yes";
    new Page(root).open();
  },
};
document.dispatchEvent(new Event("ranklab-ready"));
