// A chart of made-up curves over the page, to be measured and tested: window.madeUp.
async ({ curves, points, fresh }) => {
  const { Chart } = await import("./ranklab/static/charts.js");
  const { Points } = await import("./ranklab/static/points.js");
  const COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7"], DASHES = ["solid", "dash", "dot"];
  const host = document.createElement("div");
  host.className = "rl";
  host.style.cssText = "position:fixed;inset:0;z-index:99;background:#fff";
  host.innerHTML = `<figure class="rl-chart" data-chart="made-up" style="width:520px;height:360px">
    <figcaption></figcaption><div class="rl-plotbox"><div class="rl-plot"></div></div><p class="rl-note"></p></figure>`;
  document.body.append(host);
  const looks = Array.from({ length: curves }, (_, place) => ({ label: `method ${place}`, dash: DASHES[place % 3], colour: COLOURS[place % 4], marker: "circle" }));
  const made = (window.madeUp = { chart: new Chart(host.firstElementChild), reported: new Points(), hidden: new Set(), step: 0 });
  const losses = (steps, place) => steps.map((step) => Math.exp(-step / 500) + 0.1 * Math.sin(step + place) + place / 20);
  made.report = (count) => {
    const step = Array.from({ length: count }, (_, place) => made.step + place + 1);
    made.step += count;
    const columns = { step, seconds: step.map((at) => at / 10), flops: step.map((at) => 1e9 * at) };
    const parts = (place) => ({ step: { ...columns, loss: losses(step, place) }, eval: { step: [], score: [] }, rank: { step: [] } });
    made.reported.merge(Object.fromEntries(looks.map((look, place) => [look.label, parts(place)])));
  };
  const curve = (label, detail) => made.reported.curve([label], "step", "loss", "step", 0.8, detail);
  made.draw = () => made.chart.draw({
    lines: (detail) => looks.map((look) => ({ look, hidden: made.hidden.has(look.label), curve: curve(look.label, detail) })),
    raw: () => looks.flatMap(({ label }) => made.reported.raw(label, "step", "loss").map((row) => ({ method: label, ...row }))),
    guides: [],
    version: `${made.reported.version("step")} ${[...made.hidden]}`,
    view: { axis: "step", yTitle: "loss", revision: "made-up", empty: "nothing yet", what: "loss", file: "made-up" },
  });
  made.settled = () => new Promise((resolve) => requestAnimationFrame(() => setTimeout(resolve)));
  /** Milliseconds of the main thread for each of some updates, the painting included. */
  made.updates = async (count) => {
    const took = [];
    for (let update = 0; update < count; update++) {
      await new Promise((resolve) => setTimeout(resolve, 100));
      const begin = performance.now();
      made.report(fresh);
      made.draw();
      await made.settled();
      took.push(performance.now() - begin);
    }
    return took;
  };
  made.report(points - fresh);
  made.draw();
  await made.settled();
};
