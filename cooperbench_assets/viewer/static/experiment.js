"use strict";
// One experiment: its headline and warnings, every cell with outcomes and checks, what runs now, money and time.
(() => {
  const OUTCOMES = ["pass", "fail", "infra_error", "unevaluated", "missing"];
  const AGAIN_SECONDS = 5;
  const list = (name, query) => View.to(["e", name, "pairs"], query);
  const chosen = (cell, query = {}) => ({ ...View.cellQuery(cell.setting, cell.seed, cell.address), ...query });

  const bar = (name, cell) => {
    const total = OUTCOMES.reduce((sum, outcome) => sum + (cell.counts[outcome] || 0), 0) || 1;
    const parts = OUTCOMES.filter((outcome) => cell.counts[outcome]);
    return View.h("div", { class: "outcomes" }, parts.map((outcome) => {
      const n = cell.counts[outcome];
      const part = View.h("a", { href: list(name, chosen(cell, { outcome })), class: "outcome-part", "data-outcome": outcome,
        title: `${n} of ${total}: ${View.words(outcome)}`, "aria-label": `${n} ${View.words(outcome)} in ${cell.address.join("/")}` }, `${View.number(n)} ${View.words(outcome)}`);
      part.style.flexGrow = String(n);
      return part;
    }));
  };
  const checks = (cell) => {
    if (cell.setting === null) return null;
    if (cell.checks === null) return View.h("span", { class: "note" }, "not checked yet");
    if (!cell.checks.failed.length) return View.h("span", { class: "good" }, `${View.plural(cell.checks.passed, "check")} passed`);
    return View.fold(View.h("span", { class: "bad" }, `${View.plural(cell.checks.failed.length, "check")} failed`), () => failures(cell.checks.failed));
  };
  const failures = (failed) => View.h("ul", { class: "plain" }, failed.map((one) => View.h("li", {},
    View.h("strong", {}, `${one.asset}: ${View.words(one.name)}`), ` ${View.visible(one.description)}`,
    one.pairs.length ? View.h("ul", {}, one.pairs.map((pair) => View.h("li", {}, pair.href ? View.link(pair.href, pair.text) : View.visible(pair.text)))) : null,
    one.remedy ? View.h("p", { class: "note" }, "How to fix: ", View.h("code", {}, View.visible(one.remedy))) : null)));
  const state = (cell) => [
    cell.running ? View.h("p", { class: "running" }, `${View.plural(cell.running, "pair")} at work`) : null,
    cell.holder ? View.h("p", { class: "note" }, `held by ${View.visible(cell.holder)}`) : null,
    cell.problem ? View.h("p", { class: "problem" }, View.visible(cell.problem)) : null,
  ];

  const cellBox = (name, cell) => View.h("article", { class: "cell", "data-cell": cell.address.join("/"), "aria-label": cell.address.join(" seed ") },
    View.h("h3", {}, View.link(list(name, chosen(cell)), cell.address.join("/")), " ",
      View.h("small", {}, `${View.number(cell.judged)} of ${View.number(cell.total)} judged`)),
    bar(name, cell),
    View.h("p", { class: "note" }, `strict ${View.number(cell.strict_pass)} pass · ${View.dollars(cell.cost_usd)}${cell.cost_unknown ? ` (+ ${View.number(cell.cost_unknown)} unknown)` : ""} · agents ${View.clock(cell.agent_seconds)}${cell.wasted_usd ? ` · ${View.dollars(cell.wasted_usd)} wasted on failed tries` : ""}`),
    state(cell), checks(cell));

  const grid = (data) => {
    const settings = [...new Set(data.cells.map((cell) => cell.setting))];
    return settings.map((setting) => View.h("section", { "aria-label": setting ?? "Runs" },
      setting && View.h("h3", { class: "setting-name" }, setting),
      View.h("div", { class: "cells" }, data.cells.filter((cell) => cell.setting === setting).map((cell) => cellBox(data.name, cell)))));
  };

  const rate = (row) => {
    if (row.refused) return View.h("p", { class: "problem" }, `No headline: ${row.refused}`);
    const low = row.bound_low ?? 0, high = row.bound_high ?? 0;
    return View.svg("svg", { viewBox: "0 0 100 12", preserveAspectRatio: "none", class: "rate", "aria-hidden": "true" },
      View.svg("rect", { x: 0, y: 0, width: 100, height: 12, class: "rate-all" }),
      View.svg("rect", { x: 100 * low, y: 8, width: Math.max(0.3, 100 * (high - low)), height: 3, class: "rate-bounds" }),
      View.svg("rect", { x: 0, y: 2, width: 100 * (row.rate ?? 0), height: 5, class: "rate-value" }));
  };
  const headline = (name, data) => View.h("section", { "aria-label": "Headline" }, View.h("h2", {}, "Headline"),
    data.remarks.map((text) => View.h("p", { class: "remark" }, text)),
    data.rows.length ? View.table(["Setting", "Passes of judged, strict [95 %]", "Bounds", "Upstream's verdict", "Judged", ""], data.rows.map((row) => View.h("tr", {},
      View.h("th", { scope: "row" }, View.link(list(name, { setting: row.setting }), row.setting)),
      View.h("td", { class: "number" }, row.refused ? "–" : row.strict), View.h("td", { class: "number" }, row.bounds), View.h("td", { class: "number" }, row.refused ? "–" : row.upstream),
      View.h("td", { class: "number" }, `${View.number(row.judged)} of ${View.number(row.planned)}`),
      View.h("td", {}, View.h("a", { href: list(name, { setting: row.setting, strict: "pass" }), "aria-label": `pairs of ${row.setting} that pass` }, rate(row))))), { label: "Success by setting" })
      : !data.remarks.length && View.note("Nothing is in the results store yet."),
    View.h("ul", {}, data.statements.map((text) => View.h("li", {}, text))));
  const warnings = (data) => {
    const loud = data.warnings.filter((one) => one.level !== "info"), quiet = data.warnings.filter((one) => one.level === "info");
    const items = (rows) => View.h("ul", { class: "warnings" }, rows.map((one) => View.h("li", { class: one.level }, View.h("strong", {}, one.level), ` ${View.visible(one.subject)}: ${View.visible(one.text)}`)));
    return View.h("section", { "aria-label": "Warnings" }, View.h("h2", {}, "Warnings"),
      loud.length ? items(loud) : View.note("Nothing that makes a figure doubtful was found."),
      quiet.length ? View.fold(View.plural(quiet.length, "note"), () => items(quiet)) : null);
  };

  View.experimentPage = async (show, [name], query, current) => {
    View.trail([["Experiments", "#/"], [name]], name);
    const key = `experiment/${name}`;
    let data = await View.load(key, { fresh: !View.inBundle });
    const above = View.h("div", {}, View.note("The headline is being worked out…")), cells = View.h("section", { "aria-label": "Cells" }), facts = View.h("p", { class: "note" });
    const draw = () => {
      const sum = (of) => data.cells.reduce((total, cell) => total + (of(cell) || 0), 0);
      facts.replaceChildren(document.createTextNode(`${View.plural(data.cells.length, "cell")} · ${View.number(sum((one) => one.judged))} of ${View.number(sum((one) => one.total))} pairs judged · ${View.dollars(sum((one) => one.cost_usd))} · agents ${View.clock(sum((one) => one.agent_seconds))}${sum((one) => one.running) ? ` · ${sum((one) => one.running)} at work now` : ""}`));
      const open = new Set([...cells.querySelectorAll("article:has(details[open])")].map((one) => one.dataset.cell));
      cells.replaceChildren(View.h("h2", {}, "Cells"), ...data.waiting.map((text) => View.h("p", { class: "running" }, View.visible(text))), ...grid(data),
        ...(data.checks.length ? [View.h("h2", {}, "Checks of the whole experiment that failed"), failures(data.checks)] : []));
      for (const one of cells.querySelectorAll("article")) if (open.has(one.dataset.cell)) for (const fold of one.querySelectorAll("details")) fold.open = true;
    };
    if (!show(View.h("h1", {}, name), facts, View.h("p", {}, View.link(list(name, {}), "All pairs"), " · ", View.link(list(name, { rows: "pairs" }), "Pairs with their cells side by side"), data.report ? [" · ", View.h("a", { href: data.report, target: "_blank", rel: "noopener" }, "The report")] : null), above, cells)) return;
    draw();
    View.keys = { l: ["the list of pairs", () => { location.hash = list(name, {}); }] };
    View.load(`headline/${name}`, { fresh: !View.inBundle }).then((found) => { if (current()) above.replaceChildren(headline(name, found), found.rows.length ? warnings(found) : ""); },
      (error) => above.replaceChildren(View.note(`There is no headline: ${View.visible(error.message)}`)));
    const again = async () => {
      if (!current()) return;
      if (!document.hidden) {
        try {
          const found = await View.load(key, { fresh: true });
          if (current() && JSON.stringify(found) !== JSON.stringify(data)) { data = found; draw(); }
        } catch { /* The server is away; the page stays as it is. */ }
      }
      setTimeout(again, AGAIN_SECONDS * 1000);
    };
    if (!View.inBundle) setTimeout(again, AGAIN_SECONDS * 1000);
  };
})();
