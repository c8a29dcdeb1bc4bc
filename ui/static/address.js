// What the address says: `#tab=runs&c=id`. Every tab keeps its own words there; a reload finds them again.

export const read = () => Object.fromEntries(new URLSearchParams(location.hash.slice(1)));

/** Set words of the address (null or "" takes one away). `step`: the browser's back button comes back to what was. */
export function write(change, step = false) {
  const words = Object.entries({ ...read(), ...change }).filter(([, value]) => value !== null && value !== undefined && value !== "");
  const hash = words.length ? `#${new URLSearchParams(words)}` : location.pathname + location.search;
  if (hash === location.hash) return;
  history[step ? "pushState" : "replaceState"](history.state, "", hash);
}
