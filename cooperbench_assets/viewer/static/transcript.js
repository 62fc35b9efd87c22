"use strict";
// The agents' steps in two columns on one clock (one column for solo), folded; their texts come in chunks.
(() => {
  const ROW = 30;
  const SIDE = ["left", "right"];
  const HEADINGS = { system: "system prompt", task: "task", message: "message read", thought: "thought", command: "command", output: "output", note: "harness", raw: "as it is in the file" };

  /** All steps in the order of the clock; those of one agent keep theirs, and one without a time stays behind its forerunner. */
  View.orderOf = (agents) => {
    const timed = agents.every((agent) => agent.timed || !agent.steps.length);
    const queues = agents.map((agent) => {
      let last = -Infinity;
      return agent.steps.map((step) => {
        if (step.at !== null) last = Math.max(last, step.at);
        return { agent, step, key: timed ? last : step.index };
      });
    });
    return { rows: queues.flat().sort((a, b) => (a.key === b.key ? 0 : a.key < b.key ? -1 : 1)), timed };
  };

  View.transcript = ({ page, key, start, onNote, hidden }) => {
    const { rows, timed } = View.orderOf(page.agents);
    const place = new Map(rows.map((row, n) => [`${row.agent.name}.${row.step.index}`, n]));
    const side = new Map(page.agents.map((agent, n) => [agent.name, SIDE[Math.min(n, 1)]]));
    const open = new Set();
    let all = false, selected = -1, wanted = -1, list = null;
    const box = View.h("div", { class: `steps${page.agents.length > 1 ? " two" : ""}`, tabindex: "0", role: "list", "aria-label": "Steps in the order of the clock" });
    const arcs = View.svg("svg", { class: "arcs", "aria-hidden": "true" });
    const name = (row) => `${row.agent.name}.${row.step.index}`;

    const texts = (row, bodies) => {
      const found = bodies.flatMap((body) => body.steps.filter((step) => step.index === row.step.index)).flatMap((step) => step.texts);
      const joined = [];
      for (const text of found) {
        const last = joined[joined.length - 1];
        if (text.continues && last && last.kind === text.kind) last.text += text.text;
        else joined.push({ ...text });
      }
      const shown = joined.filter((text) => !hidden.has(text.kind));
      const left = joined.length - shown.length;
      return [
        shown.map((text) => View.h("div", { class: "text", "data-kind": text.kind },
          View.h("h4", {}, HEADINGS[text.kind] || text.kind, text.label ? ` (${View.visible(text.label)})` : "",
            text.exit_code ? View.h("span", { class: "bad" }, ` exit code ${text.exit_code}`) : ""),
          View.block(text.text, { "aria-label": HEADINGS[text.kind] || text.kind }))),
        left ? View.note(`${View.plural(left, "text")} of this step ${left === 1 ? "is" : "are"} switched off above.`) : null,
        !joined.length && View.note("Nothing is recorded of this step but what stands above."),
      ];
    };
    const load = async (row, into, upTo) => {
      const { chunk, chunks } = row.step;
      const bodies = [];
      try {
        for (let n = chunk; n < Math.min(chunk + upTo, chunk + chunks); n += 1) bodies.push(await View.load(`${key("chunk")}/${row.agent.name}/${n}`));
        into.replaceChildren(...texts(row, bodies).flat(Infinity).filter(Boolean));
        if (upTo < chunks)
          into.append(View.h("button", { type: "button", class: "more", click: () => load(row, into, upTo + 4) }, `Load more of this step: ${View.size(row.step.bytes)} in all`));
      } catch (error) {
        into.replaceChildren(View.h("p", { class: "problem" }, View.visible(error.message)));
      }
      if (list) list.remeasure();
      if (into.isConnected && wanted === place.get(name(row))) {
        wanted = -1;
        box.scrollIntoView({ block: "nearest" });  // The texts have made it larger.
        list.reveal(place.get(name(row)));
      }
    };

    const facts = (step) => [
      step.waited_seconds ? `waited ${View.clock(step.waited_seconds)}` : null,
      step.duration_seconds !== null ? View.clock(step.duration_seconds) : null,
      step.output_tokens !== null ? `${View.number(step.output_tokens)} tok` : null,
      step.cost_usd !== null ? View.dollars(step.cost_usd) : null,
    ].filter(Boolean).join(" · ");
    const marks = (step) => [
      step.sends && View.h("span", { class: "mark sends" }, "sends"),
      step.reads && View.h("span", { class: "mark reads" }, "reads"),
      step.git.map((what) => View.h("span", { class: "mark git" }, `git ${what}`)),
      step.exit_code ? View.h("span", { class: "mark bad" }, `exit ${step.exit_code}`) : null,
    ];
    const noted = (row) => page.notes.filter((note) => note.agent === row.agent.name && note.index === row.step.index);
    const make = (index) => {
      const row = rows[index], { agent, step } = row;
      const isOpen = all || open.has(index);
      const label = step.number === null ? View.words(step.kind) : String(step.number);
      const head = View.h("button", { type: "button", class: "step-head", "aria-expanded": String(isOpen), click: () => toggle(index) },
        View.h("span", { class: "step-number" }, label),
        View.h("span", { class: "step-time" }, step.at === null || start === null ? "" : View.clock(step.at - start)),
        marks(step), noted(row).length ? View.h("span", { class: "mark noted" }, "note") : null,
        View.h("span", { class: "step-summary" }, View.visible(step.summary || "(nothing said)")),
        View.h("span", { class: "step-facts" }, facts(step)));
      const content = View.h("div", { class: "step-body" });
      if (isOpen) {
        content.append(View.note("Loading…"));
        load(row, content, 2);
      }
      return View.h("div", { class: `step ${side.get(agent.name)}${index === selected ? " selected" : ""}`, role: "listitem",
        "data-step": name(row), "aria-label": `${agent.name}, ${step.number === null ? step.kind : `step ${step.number}`}` },
        View.h("div", { class: "step-card", "data-agent": agent.name },
          View.h("div", { class: "step-top" }, page.agents.length > 1 ? View.h("span", { class: "who" }, agent.name) : null, head),
          isOpen && View.h("div", { class: "step-tools" },
            View.h("button", { type: "button", click: () => copy(index) }, "Copy link"),
            onNote && View.h("button", { type: "button", click: () => onNote(agent.name, step.index, () => list.refresh(index)) }, "Note"),
            noted(row).map(View.noteText)),
          isOpen && content));
    };

    const copy = async (index) => {
      View.choose({ step: name(rows[index]), show: null });
      try {
        await navigator.clipboard.writeText(location.href);
        View.say("The link to this step is copied.");
      } catch {
        View.say("The link to this step is in the address bar.");
      }
    };
    const toggle = (index) => {
      if (all) {
        all = false;
        for (let n = list.visible()[0]; n < list.visible()[1]; n += 1) open.add(n);
      }
      if (open.has(index)) open.delete(index);
      else open.add(index);
      select(index, false);
    };
    const select = (index, reveal = true) => {
      const before = selected;
      selected = index;
      if (before >= 0 && before !== index) list.refresh(before);
      if (reveal) list.reveal(index);
      list.refresh(index);
      const head = list.row(index)?.querySelector(".step-head");
      if (head) head.focus({ preventScroll: true });
    };
    const draw = ({ from, to, tops }) => {
      const middle = box.clientWidth / 2, height = tops[rows.length];
      arcs.setAttribute("height", String(height));
      arcs.setAttribute("width", "64");
      arcs.style.left = `${middle - 32}px`;
      const y = (index) => tops[index] + ROW / 2;
      arcs.replaceChildren(...(page.messages || []).map((message) => {
        const sent = place.get(`${message.sender}.${message.sent_index}`);
        if (sent === undefined) return null;
        const read = place.get(`${message.receiver}.${message.read_index}`);
        if (Math.max(sent, read ?? sent) < from || Math.min(sent, read ?? sent) > to) return null;
        const right = side.get(message.sender) === "right", x1 = right ? 64 : 0;
        if (read === undefined)
          return View.svg("path", { d: `M${x1},${y(sent)} h${right ? -26 : 26}${message.read === "never" ? " m-5,-5 l10,10 m0,-10 l-10,10" : ""}`, class: "arc", "data-read": message.read });
        const x2 = 64 - x1, end = right ? 5 : -5;
        return View.svg("path", { d: `M${x1},${y(sent)} C32,${y(sent)} 32,${y(read)} ${x2},${y(read)} m${end},-4 l${-end},4 l${end},4`, class: "arc", "data-read": message.read });
      }).filter(Boolean));
      const sheet = box.firstChild;
      if (arcs.parentNode !== sheet) sheet.append(arcs);
    };

    return {
      node: box, rows, timed,
      start: () => { list = View.virtual({ box, count: rows.length, estimate: ROW, make, after: page.agents.length > 1 ? draw : null, grow: (height) => { box.style.height = `${Math.ceil(height) + 4}px`; } }); },
      jump: (agent, index) => {
        const at = place.get(`${agent}.${index}`);
        if (at === undefined) return false;
        open.add(at);
        wanted = at;
        select(at);
        View.choose({ step: `${agent}.${index}`, show: null });
        return true;
      },
      move: (by) => rows.length && select(Math.max(0, Math.min(rows.length - 1, selected + by))),
      toggle: () => selected >= 0 && toggle(selected),
      copy: () => selected >= 0 && copy(selected),
      nextMessage: () => {
        const next = rows.findIndex((row, n) => n > selected && (row.step.sends || row.step.reads));
        if (next >= 0) select(next);
      },
      unfold: (whole) => {
        all = whole;
        open.clear();
        for (let n = list.visible()[0]; n < list.visible()[1]; n += 1) list.refresh(n);
      },
      refresh: () => { for (let n = list.visible()[0]; n < list.visible()[1]; n += 1) list.refresh(n); },
    };
  };
})();
