// "Push to the Hub" of one run: with a typed token, or on a public page with the visitor's own sign-in.

import { get, h, isAnswer, post, Refusal } from "./util.js";

const LOOK = 700; // milliseconds between looks at what is being made

/** What an export or a push has come to, looked at by its path until it has ended. */
export async function ended(path, job) {
  for (;;) {
    const found = await get(path, { job });
    if (found.state === "failed") throw new Refusal([{ field: "", message: found.message }]);
    if (found.state !== "waiting") return found;
    await new Promise((resolve) => setTimeout(resolve, LOOK));
  }
}

export function pusher(found, kinds) {
  if (!found.formats.length) return null;
  const { way, name } = found.push;
  const inside = way === "none" ? h("p.rl-sub", {}, "Not offered here: this host has no sign-in of the Hub.") : way === "sign-in" ? signIn() : form(found, kinds, way, name);
  return h("details.rl-push", {}, h("summary", {}, "Push to the Hub"), inside);
}

function signIn() {
  const back = `/${location.search}${location.hash}`;
  const link = h("a", { href: `login/huggingface?${new URLSearchParams({ _target_url: back })}` }, "Sign in with Hugging Face");
  return h("p.rl-sub", {}, "Only your own account can push from this page. ", link);
}

function form(found, kinds, way, name) {
  const kind = h("select", { "aria-label": "Format to push" }, found.formats.map((format) => h("option", { value: format }, kinds[format])));
  const repository = h("input", { type: "text", required: true, placeholder: "owner/name", autocomplete: "off", spellcheck: "false", maxlength: "200", value: name ? `${name}/` : "" });
  const token = way === "token" ? h("input", { type: "password", autocomplete: "off", maxlength: "500" }) : null;
  const existing = h("input", { type: "checkbox" });
  const button = h("button.rl-button.rl-small", { type: "submit" }, "Push");
  const state = h("span.rl-pushed", { role: "status" });
  const send = async (event) => {
    event.preventDefault();
    const body = { id: found.run, format: kind.value, repository: repository.value.trim(), existing: existing.checked };
    if (token) [body.token, token.value] = [token.value, ""];
    await push(body, button, state);
  };
  return h("form", { autocomplete: "off", onsubmit: send },
    kind,
    h("label", {}, "Repository; a new one is public unless its owner's settings say otherwise", repository),
    token ? h("label", {}, "Token that may write; sent once, kept nowhere. Empty: this machine's login", token) : h("p.rl-sub", {}, `With your account, ${name}.`),
    h("label.rl-inline", {}, existing, "also into a repository that is there already"),
    h("div.rl-row-of", {}, button, state));
}

async function push(body, button, state) {
  button.disabled = true;
  state.textContent = "under way; the page can be used meanwhile";
  try {
    const asked = post("runs/push", body);
    delete body.token;
    const { address } = await ended("runs/pushed", (await asked).job);
    state.replaceChildren("Pushed to ", h("a", { href: address, target: "_blank", rel: "noopener" }, body.repository));
  } catch (error) {
    state.textContent = error instanceof Refusal ? error.message : "The server does not answer.";
    if (!isAnswer(error)) throw error;
  } finally {
    button.disabled = false;
  }
}
