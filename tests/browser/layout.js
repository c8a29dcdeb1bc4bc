// What the layout test asks of a page: window.layout.
window.layout = (() => {
  const up = (element, test) => element && (test(element) ? element : up(element.parentElement, test));
  const style = (element) => getComputedStyle(element);
  const clipped = (element) => up(element.parentElement, (one) => style(one).overflowX !== "visible");
  const floats = (element) => up(element, (one) => one.matches("button, .rl-go, .rl-define") && ["fixed", "sticky"].includes(style(one).position));
  const shown = (element) => element.checkVisibility({ visibilityProperty: true, opacityProperty: true });
  const name = (element) => `${element.tagName.toLowerCase()}.${[...element.classList].join(".")} "${(element.innerText || element.ariaLabel || "").slice(0, 40)}"`;
  const CONTROLS = ".rl :is(button, input, select, textarea, a[href], summary)";

  /** Resolves when the page has not changed for `quiet` milliseconds, or after `limit`. */
  const still = (quiet, limit) => new Promise((resolve) => {
    let timer = setTimeout(resolve, quiet);
    const watch = new MutationObserver(() => {
      clearTimeout(timer);
      timer = setTimeout(resolve, quiet);
    });
    watch.observe(document.body, { subtree: true, childList: true, attributes: true, characterData: true });
    setTimeout(resolve, limit);
  });

  const outside = () => {
    const wide = document.documentElement.scrollWidth;
    const found = wide > innerWidth ? [`the page is ${wide} wide`] : [];
    for (const element of document.querySelectorAll(".rl *")) {
      const box = element.getBoundingClientRect();
      if (!box.width || (box.right <= innerWidth + 1 && box.left >= -1)) continue;
      if (shown(element) && !clipped(element)) found.push(`${name(element)} leaves the window`);
    }
    return found;
  };

  /** Controls that lie over each other. A segment's radio lies over its own text, and what floats is over the rest. */
  const covered = () => {
    const radio = (one) => one.type === "radio" && style(one).position === "absolute";
    const controls = [...document.querySelectorAll(CONTROLS)].filter((one) => shown(one) && !one.closest(".js-plotly-plot") && !floats(one) && !radio(one));
    const boxes = controls.map((one) => one.getBoundingClientRect());
    const found = [];
    controls.forEach((one, place) => {
      for (let next = place + 1; next < controls.length; next++) {
        const [a, b, other] = [boxes[place], boxes[next], controls[next]];
        const width = Math.min(a.right, b.right) - Math.max(a.left, b.left), height = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
        if (width > 2 && height > 2 && !one.contains(other)) found.push(`${name(one)} lies over ${name(other)}`);
      }
    });
    return found;
  };

  return {
    still,
    astray: () => [...outside(), ...covered()].slice(0, 12),
    unfold: () => document.querySelectorAll(".rl details").forEach((one) => (one.open ||= Boolean(one.offsetParent))),
    violations: async (rules = null) => (await window.axe.run({ include: [["#rl-tabs"]] }, { resultTypes: ["violations"], selectors: false, preload: false, ...(rules ? { runOnly: rules } : {}) })).violations.map(({ id, impact, help, nodes }) => ({ id, impact, help, nodes: nodes.slice(0, 4).map((node) => node.html.slice(0, 160)) })),
  };
})();
