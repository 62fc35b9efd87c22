"use strict";
// One pair: what it came to and why, then everything that led to it.
(() => {
  const KINDS = [["thought", "thoughts"], ["command", "commands"], ["output", "outputs"], ["message", "messages read"], ["system", "system prompts"]];
  const VERDICT = (passed) => (passed === null || passed === undefined ? "no verdict" : passed ? "passed" : "failed");
  const READ = { read: "read", never: "never read", "not recorded": "not recorded" };

  const section = (id, title, ...content) => View.h("section", { id, "aria-labelledby": `${id}-title` }, View.h("h2", { id: `${id}-title`, tabindex: "-1" }, title), content);

  function banner(page, jump) {
    const { row, evidence } = page;
    const where = evidence && evidence.index !== null
      ? View.h("button", { type: "button", class: "link", click: () => jump(evidence.agent, evidence.index) }, `${evidence.agent}, ${stepName(page, evidence.agent, evidence.index)}`)
      : evidence && evidence.source && View.h("code", {}, evidence.source);
    return View.h("header", { class: "banner", "data-outcome": row.outcome },
      View.h("p", { class: "verdicts" }, View.badge(row.outcome, row.reason || row.family), " ",
        View.h("span", {}, "upstream: ", VERDICT(page.both_passed)), " · ",
        View.h("span", {}, "strict: ", View.words(row.outcome_strict), page.reason_strict && page.reason_strict !== row.reason ? ` (${View.words(page.reason_strict)})` : ""),
        row.stage ? ` · stage: ${row.stage}` : "", row.flags.map((flag) => View.h("span", { class: "mark bad" }, View.words(flag)))),
      evidence ? View.h("blockquote", {}, View.block(evidence.text, { "aria-label": "evidence" }), where ? View.h("p", { class: "note" }, "from ", where) : null) : null,
      page.eval_error ? View.block(page.eval_error, { "aria-label": "error of the evaluation" }) : null,
      View.facts([["Cost", View.dollars(row.cost_usd)], ["Steps", View.number(row.steps)], ["Time", View.clock(row.duration_seconds)],
        ["Messages", row.messages === null ? null : View.number(row.messages)], ["Difficulty", row.difficulty === null ? null : View.number(row.difficulty, 2)],
        ["Model", row.model], ["Agent", row.agent_framework], ["Run", row.run]]));
  }

  const tests = (page, rawLink) => {
    const ordered = [...page.tests].sort((a, b) => Number(a.passed === true) - Number(b.passed === true));
    return section("tests", "Tests", ordered.length ? ordered.map((one) => View.h("article", { class: "tests", "data-passed": String(one.passed) },
      View.h("h3", {}, `Feature ${one.feature}: `, View.h("span", { class: one.passed ? "good" : one.passed === null ? "" : "bad" }, VERDICT(one.passed)),
        one.tests_passed !== null || one.tests_failed !== null ? ` (${View.number(one.tests_passed)} passed, ${View.number(one.tests_failed)} failed)` : "",
        one.exit_code !== null ? `, exit code ${one.exit_code}` : ""),
      one.failing.length ? View.h("pre", { class: "failing", tabindex: "0", role: "region", "aria-label": `what failed of feature ${one.feature}` },
        one.failing.map((line) => View.h("span", { class: "line bad" }, View.visible(line), "\n"))) : null,
      one.output === null ? View.note(one.passed === null && page.merge?.conflict ? "They were not run: the patches conflict." : "No output was kept.") : View.fold(`Output (${View.size(one.output_bytes)})`, () => [
        View.block(one.output, { "aria-label": `test output of feature ${one.feature}` }),
        one.output_bytes > one.output.length && View.note(`This is its end; all ${View.size(one.output_bytes)} are in `, rawLink(one.file))], one.passed === false)))
      : View.note("No tests were run, or nothing of them was kept."));
  };

  const messages = (page, start, jump) => {
    if (page.messages === null) return page.row.mode === "solo" ? null : section("messages", "Messages", View.note("No conversation was kept."));
    const step = (agent, index, at, none) => [
      index === null ? none : View.h("button", { type: "button", class: "link", click: () => jump(agent, index) }, stepName(page, agent, index)),
      at !== null && start !== null ? ` at ${View.clock(at - start)}` : ""];
    const never = page.messages.filter((one) => one.read === "never").length;
    return section("messages", `Messages (${page.messages.length}${never ? `, ${never} never read` : ""})`,
      page.messages.length ? View.table(["From", "To", "Sent", "Read", "Text"], page.messages.map((one) => View.h("tr", { "data-read": one.read },
        View.h("td", {}, one.sender || "–"), View.h("td", {}, one.receiver || "–"),
        View.h("td", {}, step(one.sender, one.sent_index, one.sent_at, one.sent_at === null ? "not recorded" : "")),
        View.h("td", {}, one.read === "read" ? [step(one.receiver, one.read_index, one.read_at, "read"),
          one.read_at !== null && one.sent_at !== null && one.read_at >= one.sent_at ? View.h("small", {}, ` after ${View.clock(one.read_at - one.sent_at)}`) : ""]
          : View.h("strong", { class: one.read === "never" ? "bad" : "" }, READ[one.read])),
        View.h("td", { class: "prose" }, View.block(one.text, { "aria-label": `message ${one.position + 1}` })))), { label: "Messages, from sent to read" })
        : View.note("They sent none."));
  };
  const stepName = (page, agent, index) => {
    const step = page.agents.find((one) => one.name === agent).steps[index];
    return step.number === null ? View.words(step.kind) : `step ${step.number}`;
  };

  const agents = (page) => View.table(["Agent", "Feature", "Ended", "Calls", "Cost", "Tokens in", "cached", "out", "Transcript"], page.agents.map((one) =>
    View.h("tr", {}, View.h("th", { scope: "row" }, one.name), View.h("td", {}, one.feature === null ? "both" : `${one.feature}${one.title ? ` ${one.title}` : ""}`),
      View.h("td", {}, one.status || "–", one.failed ? View.h("span", { class: "mark bad" }, `infrastructure: ${View.words(one.family || "unknown")}`) : ""),
      View.h("td", { class: "number" }, View.number(one.calls)), View.h("td", { class: "number" }, View.dollars(one.cost_usd)),
      View.h("td", { class: "number" }, View.number(one.input_tokens)), View.h("td", { class: "number" }, View.number(one.cache_read_tokens)), View.h("td", { class: "number" }, View.number(one.output_tokens)),
      View.h("td", {}, one.format === null ? "not kept" : `${View.words(one.format)}, ${View.size(one.transcript_bytes)}`))), { label: "Agents" });

  const patches = (page) => page.patches.length ? section("patches", "Patches", View.h("div", { class: "columns" }, page.patches.map((one) => {
    const other = page.patches.find((patch) => patch !== one);
    return View.h("article", {}, View.h("h3", {}, `${one.agent}: `, one.text === null ? `${View.number(one.lines)} lines, not kept` : View.plural(one.lines ?? one.text.split("\n").length, "line")),
      one.text === null ? null : one.text.trim() ? View.diff(one.text, one.overlapping, other ? `${other.agent}` : undefined) : View.note("It is empty."));
  }))) : null;

  const merge = (page) => page.merge ? section("merge", "Merge",
    View.facts([["Status", page.merge.status], ["Strategy", page.merge.strategy], ...Object.entries(page.merge.applied).map(([agent, what]) => [`Patch of ${agent}`, what])]),
    page.merge.text ? View.fold("The merged diff, or what git said", () => View.h("div", {}, View.diff(page.merge.text)), page.merge.conflict) : View.note("Upstream kept no text of it.")) : null;

  const ofTry = (page, href) => {
    const one = page.tries.find((other) => other.page === page.attempt);
    return View.h("div", { class: "remark" },
      View.h("p", {}, `These are the files of try ${one.n}, which ended as ${View.words(one.outcome)}${one.family ? ` (${View.words(one.family)})` : ""}. It is not the pair's result: `, View.link(href, "see that"), "."),
      one.evidence && !page.evidence && View.block(one.evidence, { "aria-label": "what ended the try" }));
  };
  const tries = (page, to) => page.tries.length ? section("tries", `Tries (${page.tries.length})`, View.table(["Stage", "Try", "Ended as", "Started", "Took", "Cost", "Evidence"], page.tries.map((one) =>
    View.h("tr", {}, View.h("td", {}, one.stage), View.h("td", { class: "number" }, one.page ? View.link(to(one.page), `${one.n}: its steps`) : one.n), View.h("td", {}, View.words(one.outcome), one.family ? `: ${View.words(one.family)}` : ""),
      View.h("td", {}, one.started_at === null ? "–" : new Date(one.started_at * 1000).toISOString().slice(0, 19).replace("T", " ")),
      View.h("td", {}, one.ended_at === null || one.started_at === null ? "–" : View.clock(one.ended_at - one.started_at)),
      View.h("td", {}, View.dollars(one.cost_usd), one.cost_estimated ? " (estimated)" : ""), View.h("td", { class: "prose" }, one.evidence ? View.block(one.evidence, { "aria-label": "evidence" }) : "–"))), { label: "Tries, and what ended each (UTC)" })) : null;

  const missing = (page) => {
    const said = [...page.problems, ...page.not_kept, ...page.left_out.map((one) => `${one.file}: ${one.reason}${one.count > 1 ? ` (${View.number(one.count)} times)` : ""}${one.bytes ? `, ${View.size(one.bytes)}` : ""}`)];
    return said.length ? section("missing", "What is not shown", View.h("ul", {}, said.map((text) => View.h("li", {}, View.visible(text))))) : null;
  };

  async function neighbours(source, path, query, into) {
    const rows = await View.load(`list/${source}`);
    const row = rows.find((one) => one.path === path);
    if (!row) return;
    const inside = Object.fromEntries(Object.entries(query).filter(([key]) => key.startsWith("in-")).map(([key, value]) => [key.slice(3), value]));
    const asked = Object.keys(inside).length ? inside : { outcome: row.outcome, ...(row.reason ? { reason: row.reason } : {}), ...View.queryOf(row) };
    const { text, ...chips } = asked;
    const kept = View.chosenRows(rows, chips);
    const at = kept.findIndex((one) => one.path === row.path);
    const go = (n) => (at >= 0 && kept[n] ? View.to(View.address(source, kept[n]), query.step || query.show ? { ...query, step: null } : query) : null);
    const before = go(at - 1), after = go(at + 1);
    const kind = Object.keys(inside).length ? "in the list" : `${View.words(row.reason || row.family || row.outcome)} in ${View.cellOf(row).join("/")}`;
    const same = rows.filter((one) => one.pair === row.pair);
    into.replaceChildren(...[
      View.h("p", {}, before ? View.link(before, "← previous") : "← previous", " ", View.h("span", { class: "note" }, at >= 0 ? `${at + 1} of ${kept.length}, ${kind}` : kind), " ", after ? View.link(after, "next →") : "next →"),
      same.length > 1 ? View.h("p", {}, "This pair elsewhere: ", same.map((one) => [" ", one.path === row.path ? View.h("strong", {}, View.cellOf(one).join("/")) : View.pairLink(source, one, {}, View.cellOf(one).join("/"), " ", View.badge(one.outcome))])) : null].filter(Boolean));
    View.keys.n = ["next pair", () => { if (after) location.hash = after; }];
    View.keys.p = ["previous pair", () => { if (before) location.hash = before; }];
  }

  const writer = (address, page, redraw) => (agent, index, refresh) => {
    const old = page.notes.find((one) => one.agent === agent && one.index === index) || { text: "", labels: [] };
    const text = View.h("textarea", { "aria-label": "Note", rows: "4" }, old.text);
    const labels = View.h("input", { "aria-label": "Labels, separated by commas", placeholder: "labels, separated by commas", value: old.labels.join(", ") });
    const save = async () => {
      const note = { agent, index, text: text.value, labels: labels.value.split(",").map((one) => one.trim()).filter(Boolean) };
      const answer = await fetch(address, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(note) });
      if (!answer.ok) { View.say(await answer.text()); return; }
      page.notes = [...page.notes.filter((one) => one.agent !== agent || one.index !== index), ...(note.text || note.labels.length ? [note] : [])];
      dialog.close();
      (refresh || redraw)();
    };
    const dialog = View.h("dialog", { "aria-label": "Note", close: () => dialog.remove() },
      View.h("h2", {}, agent === null ? "Note on this pair" : `Note on ${agent}, ${stepName(page, agent, index)}`), text, labels,
      View.h("div", { class: "bar" }, View.h("button", { type: "button", click: save }, "Save"), View.h("button", { type: "button", click: () => dialog.close() }, "Cancel")));
    document.body.append(dialog);
    dialog.showModal();
    text.focus();
  };

  View.pairPage = async (show, place, query, current) => {
    const [source, first, second, repo, task, folder, attempt] = place;
    const to = (...further) => View.to(["e", ...place.slice(0, 6), ...further]);
    const key = (kind) => `${kind}/${place.join("/")}`;
    const ofPair = (kind) => `${kind}/${place.slice(0, 6).map(encodeURIComponent).join("/")}`;
    const page = await View.load(key("pair"), { fresh: !View.inBundle });
    if (!current()) return;
    const name = `${repo}/${task}/${folder}`;
    View.trail([["Experiments", "#/"], [source, View.to(["e", source])], ["Pairs", View.to(["e", source, "pairs"])], [`${first}/${second}`, View.to(["e", source, "pairs"], View.queryOf(page.row))], [name, attempt && to()], ...(attempt ? [[attempt]] : [])], `${name} ${first}/${second}`);
    const rawLink = (file) => {
      const found = page.files.find((one) => one.name === file || one.name.endsWith(`/${file}`));
      if (!found || View.inBundle) return View.h("code", {}, View.visible(file));
      return View.h("a", { href: `${ofPair("raw")}/${found.name.split("/").map(encodeURIComponent).join("/")}`, target: "_blank", rel: "noopener" }, View.visible(found.name));
    };
    const rawText = (file) => {
      const parts = View.h("div", {}, View.h("p", {}, rawLink(file.name), " as text, whole"));
      const more = async (from) => {
        const part = await View.load(`raw/${place.slice(0, 6).join("/")}/${file.name}`, { query: { start: String(from) } });
        parts.append(View.block(part.text, { "aria-label": part.name }));
        if (part.end < part.bytes && part.end > part.start) {
          const button = View.h("button", { type: "button", class: "more", click: () => { button.remove(); more(part.end); } }, `Show more: ${View.size(part.bytes - part.end)} of ${View.size(part.bytes)} left`);
          parts.append(button);
        }
      };
      more(0).catch((error) => parts.append(View.h("p", { class: "problem" }, View.visible(error.message))));
      return parts;
    };
    const start = View.startOf(page);
    const hidden = new Set(["system"]);
    let steps = null;
    const onNote = View.inBundle || attempt || page.row.experiment === null ? null : writer(ofPair("notes"), page, () => pairNotes());
    steps = View.transcript({ page, key, start, onNote, hidden });
    const jump = (agent, index) => { if (!steps.jump(agent, index)) View.say("That step is not in the transcript."); };
    const strip = View.strip(page, jump);
    const toggles = View.h("div", { class: "chips", role: "group", "aria-label": "What steps show" }, KINDS.map(([kind, text]) =>
      View.chip(text, !hidden.has(kind), () => {
        if (!hidden.delete(kind)) hidden.add(kind);
        steps.refresh();
      })),
      View.chip("unfold all", false, (_, whole) => steps.unfold(whole)));
    const notes = View.h("div");
    const pairNotes = () => notes.replaceChildren(...[...page.notes.filter((one) => one.agent === null).map(View.noteText),
      onNote ? View.h("button", { type: "button", click: () => onNote(null, null) }, "Write a note on this pair") : null].filter(Boolean));
    pairNotes();
    const around = View.h("nav", { "aria-label": "Other pairs", class: "around" });
    const sections = [
      attempt && !page.tests.length ? null : tests(page, rawLink), messages(page, start, jump),
      section("steps", `Steps (${View.number(steps.rows.length)})`, agents(page), strip,
        steps.rows.length ? [toggles, steps.timed ? null : View.note(page.agents.length > 1 ? "Times are not recorded: the steps of each agent are in order, and the columns are not aligned." : "Times are not recorded."), steps.node] : View.note("No transcript was kept.")),
      patches(page), merge(page), tries(page, to),
      page.files.length ? section("files", `Raw files (${page.files.length})`, page.files.map((file) => View.inBundle ? View.h("p", {}, View.h("code", {}, View.visible(file.name)), ` ${View.size(file.bytes)}`)
        : View.fold([View.h("code", {}, View.visible(file.name)), ` ${View.size(file.bytes)}`], () => rawText(file))),
        View.note(View.inBundle ? "A bundle holds none of them." : "Without secrets, e-mail addresses and users' names.")) : null,
      missing(page), onNote || page.notes.length ? section("notes", "Notes", notes) : null,
    ].filter(Boolean);
    const toSection = (id) => {
      const head = document.getElementById(`${id}-title`);
      if (!head) return;
      head.scrollIntoView({ block: "start" });
      head.focus({ preventScroll: true });
      View.choose({ show: id, step: null });
    };
    if (!show(View.h("h1", {}, name, " ", View.h("small", {}, [first, second, attempt].filter(Boolean).join("/"))), attempt && ofTry(page, to()), banner(page, jump), around,
      View.h("nav", { "aria-label": "On this page", class: "jump" }, sections.map((one) => View.h("button", { type: "button", class: "link", click: () => toSection(one.id) }, one.querySelector("h2").textContent))),
      sections)) return;
    View.keys = { j: ["next step", () => steps.move(1)], k: ["previous step", () => steps.move(-1)], o: ["open or fold the step", () => steps.toggle()], m: ["next step with a message", () => steps.nextMessage()],
      c: ["copy the link to the step", () => steps.copy()], t: ["tests", () => toSection("tests")], s: ["steps", () => toSection("steps")], d: ["patches", () => toSection("patches")] };
    if (steps.rows.length) steps.start();
    const [, agent, index] = /^(.+)\.(\d+)$/.exec(query.step || "") || [];
    if (agent) jump(agent, Number(index));
    else if (query.show) toSection(query.show);
    neighbours(source, page.row.path, query, around).catch((error) => View.say(`The list was not loaded: ${error.message}`));
  };
})();
