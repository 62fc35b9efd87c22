"use strict";
// The list of an experiment's pairs: chosen by chips and by a text, sorted, a row for each result or for each pair.
(() => {
  const OUTCOMES = ["pass", "fail", "infra_error", "unevaluated", "missing"];
  /** How a row is called in addresses; an experiment's cells by setting and seed, those of foreign logs by run. */
  View.cellOf = (row) => (row.experiment === null ? [row.run, row.mode || "-"] : [row.setting, String(row.seed)]);
  /** What chooses a cell in the list. */
  View.cellQuery = (setting, seed, address) => (setting === null ? { run: address.join("/") } : { setting, seed: String(seed) });
  View.queryOf = (row) => View.cellQuery(row.experiment === null ? null : row.setting, row.seed, View.cellOf(row));
  View.address = (source, row) => ["e", source, ...View.cellOf(row), row.repo, String(row.task_id), `f${row.features[0]}_f${row.features[1]}`];
  View.pairLink = (source, row, query, ...children) => View.link(View.to(View.address(source, row), query), ...children);

  const difficulty = (row) => (row.difficulty === null ? null : row.difficulty === 0 ? "0 (always solved)" : row.difficulty === 1 ? "1 (never solved)" : "between");
  const FACETS = [
    { name: "outcome", title: "Outcome", of: (row) => [row.outcome] },
    { name: "strict", title: "Strict", of: (row) => [row.outcome_strict], only: (row) => row.outcome !== row.outcome_strict },
    { name: "reason", title: "Reason", of: (row) => [row.reason] },
    { name: "family", title: "Infrastructure", of: (row) => [row.family] },
    { name: "run", title: "Run", of: (row) => [row.experiment === null ? View.cellOf(row).join("/") : null], long: true },
    { name: "setting", title: "Setting", of: (row) => [row.setting] },
    { name: "seed", title: "Seed", of: (row) => [String(row.seed)] },
    { name: "flag", title: "Flag", of: (row) => row.flags },
    { name: "difficulty", title: "Difficulty", of: (row) => [difficulty(row)] },
    { name: "task", title: "Task", of: (row) => [`${row.repo}/${row.task_id}`], long: true },
    { name: "pair", title: "Pair", of: (row) => [row.pair], hidden: true },
  ];
  const chosenIn = (query, facet) => (query[facet.name] ? query[facet.name].split(",") : []);
  const passes = (row, query, but) =>
    FACETS.every((facet) => {
      const chosen = facet.name === but ? [] : chosenIn(query, facet);
      return !chosen.length || facet.of(row).some((value) => chosen.includes(value));
    });
  const said = (row) => [row.path, row.evidence, row.family, row.reason, row.outcome, ...row.flags].filter(Boolean).join(" ").toLowerCase();

  /** The rows that a query chooses, in its order: the same for the list and for the pages it leads to. */
  View.chosenRows = (rows, query, found) => {
    const text = (query.text || "").trim().toLowerCase();
    const kept = rows.filter((row) => passes(row, query) && (!text || said(row).includes(text) || (found && found.has(row.path))));
    return View.sorted(kept, COLUMNS, sortOf(query));
  };
  const sortOf = (query) => (query.sort ? { name: query.sort.replace(/^-/, ""), down: query.sort.startsWith("-") } : null);

  const num = (name, title, value, cell, width = 6, description) => ({ name, title, value, cell: (row) => cell(value(row)), width, numeric: true, description });
  let source = "", forward = {};
  const COLUMNS = [
    { name: "pair", title: "Pair", width: 20, value: (row) => row.pair, cell: (row) => View.pairLink(source, row, forward, row.pair) },
    { name: "cell", title: "Cell", width: 13, value: (row) => View.cellOf(row).join("/"), cell: (row) => View.cellOf(row).join("/") },
    { name: "outcome", title: "Outcome", width: 12, value: (row) => `${OUTCOMES.indexOf(row.outcome)}${row.reason || row.family || ""}`,
      cell: (row) => View.badge(row.outcome, row.reason || row.family) },
    { name: "strict", title: "Strict", width: 6, value: (row) => OUTCOMES.indexOf(row.outcome_strict),
      cell: (row) => (row.outcome_strict === row.outcome ? "same" : View.badge(row.outcome_strict)),
      description: "Only solo, or a clean or identical merge of two applied patches, may pass" },
    num("difficulty", "Difficulty", (row) => row.difficulty, (value) => View.number(value, 2), 6, "Share of judged solo seeds that fail"),
    num("messages", "Messages", (row) => row.messages, View.number, 6),
    num("steps", "Steps", (row) => row.steps, View.number, 4),
    num("cost", "Cost", (row) => row.cost_usd, View.dollars, 5),
    num("time", "Time", (row) => row.duration_seconds, View.clock, 5),
    num("tries", "Tries", (row) => (row.agent_tries === null && row.eval_tries === null ? null : (row.agent_tries || 0) + (row.eval_tries || 0)), View.number, 4,
      "Recorded tries of agents and of the evaluation"),
    { name: "flags", title: "Flags", width: 10, value: (row) => row.flags.join(" "), cell: (row) => row.flags.map(View.words).join(", ") },
    { name: "evidence", title: "Evidence", width: 40, value: (row) => row.evidence, cell: (row) => (row.evidence ? View.visible(row.evidence) : "") },
  ];

  /** Paths of pairs with a text in their messages, by the server, or in the bundle's own file of messages. */
  async function inMessages(name, text) {
    if (!text) return null;
    if (!View.inBundle) return new Set((await View.load(`search/${name}`, { query: { text } })).paths);
    const all = await View.load(`messages/${name}`);
    return new Set(Object.keys(all).filter((path) => all[path].toLowerCase().includes(text.toLowerCase())));
  }

  const chips = (facet, rows, query, change) => {
    const counts = new Map();
    for (const row of rows) {
      if (!passes(row, query, facet.name) || (facet.only && !facet.only(row))) continue;
      for (const value of facet.of(row)) if (value !== null) counts.set(value, (counts.get(value) || 0) + 1);
    }
    const chosen = chosenIn(query, facet);
    for (const value of chosen) if (!counts.has(value)) counts.set(value, 0);
    if (!counts.size || facet.hidden && !chosen.length || (counts.size === 1 && !chosen.length)) return null;
    const toggle = (value) => {
      const next = chosen.includes(value) ? chosen.filter((one) => one !== value) : [...chosen, value];
      change({ [facet.name]: next.join(",") });
    };
    if (facet.long) {
      const select = View.h("select", { "aria-label": facet.title, change: () => change({ [facet.name]: select.value }) },
        View.h("option", { value: "" }, `all ${counts.size}`),
        [...counts].sort().map(([value, n]) => View.h("option", { value, selected: chosen.includes(value) }, `${value} (${n})`)));
      return View.h("div", { class: "chips" }, View.h("span", { class: "facet" }, facet.title), select);
    }
    return View.h("div", { class: "chips", role: "group", "aria-label": facet.title },
      View.h("span", { class: "facet" }, facet.title),
      [...counts].sort(([a], [b]) => OUTCOMES.indexOf(a) - OUTCOMES.indexOf(b) || (a < b ? -1 : 1)).map(([value, n]) =>
        View.chip([View.words(value), " ", View.h("small", {}, View.number(n))], chosen.includes(value), () => toggle(value), { "data-value": value })));
  };

  /** One row for each pair, a column for each cell: seeds side by side, solo beside coop. */
  const byPair = (rows) => {
    const cells = [...new Map(rows.map((row) => [View.cellOf(row).join("/"), row])).keys()];
    const pairs = new Map();
    for (const row of rows) {
      if (!pairs.has(row.pair)) pairs.set(row.pair, { pair: row.pair, difficulty: row.difficulty, passes: 0, cells: {} });
      const entry = pairs.get(row.pair);
      entry.cells[View.cellOf(row).join("/")] = row;
      entry.passes += row.outcome_strict === "pass";
    }
    const columns = [
      { name: "pair", title: "Pair", width: 20, value: (entry) => entry.pair, cell: (entry) => entry.pair },
      num("difficulty", "Difficulty", (entry) => entry.difficulty, (value) => View.number(value, 2), 6),
      num("passes", "Passes", (entry) => entry.passes, View.number, 5, "Cells in which it passes by the strict verdict"),
      ...cells.map((name) => ({
        name, title: name, width: Math.max(11, name.length / 2), value: (entry) => entry.cells[name] && `${OUTCOMES.indexOf(entry.cells[name].outcome)}${entry.cells[name].reason || ""}`,
        cell: (entry) => entry.cells[name] && View.pairLink(source, entry.cells[name], forward, View.badge(entry.cells[name].outcome, entry.cells[name].reason || entry.cells[name].family)),
      })),
    ];
    return { entries: [...pairs.values()], columns };
  };

  View.listPage = async (show, [name], asked, current) => {
    View.trail([["Experiments", "#/"], [name, View.to(["e", name])], ["Pairs"]], `Pairs of ${name}`);
    const rows = await View.load(`list/${name}`, { fresh: !View.inBundle });
    let query = asked, found = null, searching = 0;
    const filters = View.h("section", { "aria-label": "Filters", class: "filters" });
    const result = View.h("section", { "aria-label": "Pairs", class: "fills" });
    const count = View.h("p", { class: "note", role: "status" });
    const search = View.h("input", { type: "search", placeholder: "in evidence and messages", "aria-label": "Search in evidence and messages", value: query.text || "" });

    const change = (changes) => {
      const focus = document.activeElement && document.activeElement.dataset ? document.activeElement.dataset.value : null;
      query = Object.fromEntries(Object.entries({ ...query, ...changes }).filter(([, value]) => value !== ""));
      history.replaceState(null, "", View.to(["e", name, "pairs"], query));
      draw();
      if (focus) [...filters.querySelectorAll("[data-value]")].find((one) => one.dataset.value === focus)?.focus();
    };
    const draw = () => {
      source = name;
      forward = Object.fromEntries(Object.entries(query).filter(([key]) => key !== "rows").map(([key, value]) => [`in-${key}`, value]));
      const kept = View.chosenRows(rows, query, found);
      const paired = query.rows === "pairs";
      filters.replaceChildren(...FACETS.map((facet) => chips(facet, rows, query, change)).filter(Boolean));
      const { entries, columns } = paired ? byPair(kept) : { entries: kept, columns: COLUMNS };
      const grid = View.grid({
        label: paired ? "Pairs, a column for each cell" : "Results",
        columns, rows: entries, sort: sortOf(query),
        onSort: ({ name: by, down }) => change({ sort: `${down ? "-" : ""}${by}` }),
      });
      count.textContent = `${View.number(kept.length)} of ${View.plural(rows.length, "result")}${paired ? `, ${View.plural(entries.length, "pair")}` : ""}`;
      result.replaceChildren(grid);
      if (!entries.length) result.append(View.note("Nothing is left by these filters."));
    };
    const find = async () => {
      const mine = (searching += 1);
      const text = search.value.trim();
      try {
        const answer = await inMessages(name, text);
        if (mine !== searching || !current()) return;
        found = answer;
      } catch (error) {
        View.say(`Messages were not searched: ${error.message}`);
        found = null;
      }
      change({ text });
    };
    let timer = 0;
    search.addEventListener("input", () => {
      clearTimeout(timer);
      timer = setTimeout(find, 200);
    });
    const views = View.h("div", { class: "chips", role: "group", "aria-label": "Rows" },
      View.h("span", { class: "facet" }, "Rows"),
      [["", "results"], ["pairs", "pairs, cells side by side"]].map(([value, text]) =>
        View.chip(text, (query.rows || "") === value, (chip) => {
          for (const one of chip.parentNode.querySelectorAll("button")) one.setAttribute("aria-pressed", String(one === chip));
          change({ rows: value, sort: "" });
        })));
    if (!show(View.h("h1", {}, `Pairs of ${name}`),
      View.h("div", { class: "bar" }, search, views,
        View.h("button", { type: "button", click: () => { search.value = ""; found = null; query = {}; change({}); } }, "Clear")),
      filters, count, result)) return;
    View.keys = { "/": ["search", () => search.focus()] };
    draw();
    if (query.text) find();
  };
})();
