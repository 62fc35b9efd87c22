"use strict";
// The pair at a glance: a lane for each agent on one clock, messages from sent to read between them.
(() => {
  const WIDTH = 1000, LANE = 26, GAP = 44;

  /** Seconds since the first thing that has a time; null where nothing has one. */
  View.startOf = (page) => {
    const times = page.agents.flatMap((agent) => agent.steps.map((step) => step.at)).filter((at) => at !== null);
    for (const message of page.messages || []) if (message.sent_at !== null) times.push(message.sent_at);
    let first = Infinity;
    for (const at of times) if (at < first) first = at;
    return first === Infinity ? null : first;
  };
  const endOf = (page) => {
    let last = -Infinity;
    for (const agent of page.agents) for (const step of agent.steps) last = Math.max(last, step.ended_at ?? step.at ?? -Infinity);
    for (const message of page.messages || []) last = Math.max(last, message.read_at ?? -Infinity, message.sent_at ?? -Infinity);
    return last;
  };
  const lane = (agent, y, x, jump) => {
    const boxes = new Map();
    for (const step of agent.steps) {
      if (step.at === null) continue;
      const left = Math.round(x(step.at)), key = `${left}`;
      const right = x(step.ended_at ?? step.at);
      const box = boxes.get(key) || { left, right, steps: 0, first: step, waits: false, git: false };
      box.right = Math.max(box.right, right);
      box.steps += 1;
      box.waits ||= Boolean(step.waited_seconds);
      box.git ||= step.git.length > 0;
      boxes.set(key, box);
    }
    return [...boxes.values()].map((box) =>
      View.svg("rect", { x: box.left, y, width: Math.max(3, box.right - box.left), height: LANE, "data-agent": agent.name,
        class: `tick${box.waits ? " waits" : ""}${box.git ? " git" : ""}`, click: () => jump(agent.name, box.first.index) },
        View.svg("title", {}, `${agent.name}, step ${box.first.number ?? box.first.index}: ${View.visible(box.first.summary)}`)));
  };
  /** The strip; `jump(agent, index)` goes to a step. Null where no time is recorded. */
  View.strip = (page, jump) => {
    const start = View.startOf(page), end = endOf(page);
    if (start === null || !(end > start) || !page.agents.some((agent) => agent.timed)) return null;
    const x = (at) => 4 + ((WIDTH - 8) * (at - start)) / (end - start);
    const lanes = new Map(page.agents.map((agent, n) => [agent.name, 16 + n * (LANE + GAP)]));
    const height = 16 + page.agents.length * LANE + (page.agents.length - 1) * GAP + 20;
    const arcs = (page.messages || []).map((message) => {
      if (message.sent_at === null || !lanes.has(message.sender)) return null;
      const down = lanes.get(message.sender) < (lanes.get(message.receiver) ?? Infinity);
      const from = lanes.get(message.sender) + (down ? LANE : 0), x1 = x(message.sent_at);
      const known = message.read === "read" && message.read_at !== null && lanes.has(message.receiver);
      const to = known ? lanes.get(message.receiver) + (down ? 0 : LANE) : from + (down ? 14 : -14), x2 = known ? x(message.read_at) : x1;
      return View.svg("path", { d: `M${x1},${from} C${x1},${(from + to) / 2} ${x2},${(from + to) / 2} ${x2},${to}`,
        class: "arc", "data-read": message.read },
        View.svg("title", {}, `${message.sender} to ${message.receiver}: ${message.read}`));
    });
    return View.h("figure", { class: "strip" },
      View.svg("svg", { viewBox: `0 0 ${WIDTH} ${height}`, preserveAspectRatio: "none", "aria-hidden": "true" },
        page.agents.map((agent) => [
          View.svg("line", { x1: 0, x2: WIDTH, y1: lanes.get(agent.name) + LANE / 2, y2: lanes.get(agent.name) + LANE / 2, class: "axis" }),
          lane(agent, lanes.get(agent.name), x, jump)]),
        arcs),
      View.h("figcaption", {}, page.agents.map((agent) => `${agent.name}${agent.feature === null ? "" : ` (feature ${agent.feature})`}`).join(" above "),
        `; ${View.clock(0)} to ${View.clock(end - start)}. Lines are messages, from sent to read; a short red one was never read. The same stands as text below.`));
  };
})();
