// The form as a link and as a command: the address bar keeps the link, so that a reload or a copy brings the form again.

import { copy, get, h, post } from "./util.js";

const WRITTEN = "ranklab-address", PAUSE = 400;
const NAMES = /^(model|task|seeds|lock|lock_to|data_seed|train_rows|eval_rows|plan|methods\.\d+|(methods\.\d+|training|task_options)\..+)$/;

/** The form that the address asks for, or null: none, or the one that this tab has written there itself. */
export async function linked() {
  const { search } = location;
  if (![...new URLSearchParams(search).keys()].some((name) => NAMES.test(name)) || sessionStorage.getItem(WRITTEN) === search) return null;
  return get(`linked${search}`);
}

export class Said {
  constructor(form) {
    this.form = form;
    this.link = h("input", { type: "text", id: "rl-link", readonly: true, onfocus: () => this.link.select() });
    this.command = h("pre.rl-command", { tabindex: "0", "aria-label": "Command line of this form" });
    const button = (text, from) => h("button.rl-button.rl-small", { type: "button", onclick: (event) => copy(from(), event.target) }, text);
    this.box = h("details.rl-more.rl-said", { open: true }, h("summary", {}, "This form as a link and a command"),
      h("div", {},
        h("div.rl-field", {}, h("label", { for: "rl-link" }, "link"), h("div.rl-pair", {}, this.link, button("Copy link", () => this.link.value))),
        this.command, button("Copy command", () => this.command.textContent)));
  }

  /** The form has changed. write: whether the address bar follows, as it does once a person has changed something. */
  changed(write) {
    this.write ||= write;
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.ask(), PAUSE);
  }

  async ask() {
    const asked = JSON.stringify(this.form.state);
    const said = await post("said", this.form.state).catch(() => null);
    if (!said || asked !== JSON.stringify(this.form.state)) return;
    this.link.value = said.query ? `${location.origin}${location.pathname}?${said.query}` : "too long for a link";
    this.command.textContent = said.command || `No command yet: ${said.why}`;
    if (this.write && said.query) this.keep(said.query);
  }

  keep(query) {
    const others = [...new URLSearchParams(location.search)].filter(([name]) => !NAMES.test(name));
    const search = `?${others.length ? `${new URLSearchParams(others)}&` : ""}${query}`;
    if (search !== location.search) history.replaceState(history.state, "", location.pathname + search + location.hash);
    sessionStorage.setItem(WRITTEN, location.search);
  }
}
