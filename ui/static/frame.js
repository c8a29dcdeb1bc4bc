// The tabs: which one the address names, what is loaded when one is first opened, the keys that go from one to the next.

import { read, write } from "./address.js";

const FIRST = "compare";
const list = () => document.querySelector('#rl-tabs [role="tablist"]');
const buttons = () => [...(list()?.querySelectorAll('[role="tab"]') ?? [])];
const button = (tab) => buttons().find((one) => one.dataset.tabId === tab);
const waiting = new Map(); // tab -> what is done when it is shown

/** The tab that the address names. */
export const wanted = () => read().tab || FIRST;

/** The tab that is open. */
export const current = () => buttons().find((one) => one.getAttribute("aria-selected") === "true")?.dataset.tabId ?? FIRST;

/** Open a tab and set words of the address. What is shown listens to "ranklab-address" on the document. */
export function go(tab, change = {}) {
  write({ ...change, tab: tab === FIRST ? null : tab }, true);
  follow();
}

/** The address has changed: open its tab and tell the tabs. */
function follow() {
  const tab = button(wanted()) ? wanted() : FIRST;
  if (current() !== tab) button(tab)?.click();
  shown(tab);
  document.dispatchEvent(new CustomEvent("ranklab-address", { detail: { tab, ...read() } }));
}

function shown(tab) {
  const opening = waiting.get(tab);
  waiting.delete(tab);
  opening?.();
}

/** Load a tab's script and style, once it is the tab that is wanted. Called by what Gradio renders. */
function open(tab, script, element, style) {
  if (element.dataset.opened) return;
  element.dataset.opened = "yes";
  const load = async () => {
    const [module] = await Promise.all([import(`./${script}.js`), style ? sheet(`${script}.css`) : null]);
    module.mount(element);
  };
  if (tab === wanted() || !button(wanted())) load();
  else waiting.set(tab, load);
  if (tab === FIRST) attach();
}

function sheet(name) {
  return new Promise((resolve) => {
    const link = document.createElement("link");
    [link.rel, link.href, link.onload, link.onerror] = ["stylesheet", new URL(name, import.meta.url), resolve, resolve];
    document.head.append(link);
  });
}

/** Once the tabs are there: go to the one of the address, and follow clicks and keys. */
function attach() {
  const tabs = list();
  if (!tabs) return setTimeout(attach, 20);
  tabs.addEventListener("click", (event) => {
    const tab = event.target.closest('[role="tab"]')?.dataset.tabId;
    if (!tab || tab === wanted()) return;
    write({ tab: tab === FIRST ? null : tab }, true);
    setTimeout(follow);
  });
  tabs.addEventListener("keydown", move);
  window.addEventListener("popstate", follow);
  window.addEventListener("hashchange", follow);
  follow();
}

/** Arrow keys, Home and End, as in any list of tabs. */
function move(event) {
  const all = buttons();
  const place = all.indexOf(document.activeElement);
  const to = { ArrowRight: place + 1, ArrowLeft: place - 1, Home: 0, End: all.length - 1 }[event.key];
  if (to === undefined || place < 0) return;
  event.preventDefault();
  const next = all.at(to % all.length);
  next.focus();
  next.click();
}

if (wanted() === FIRST) import("./page.js"); // before Gradio has drawn anything
window.ranklab = { open, go, current };
document.dispatchEvent(new Event("ranklab-ready"));
