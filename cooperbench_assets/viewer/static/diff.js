"use strict";
// Patches as coloured lines, file by file, with the hunks marked that the other patch changes too.
(() => {
  const KINDS = { "+": "added", "-": "removed", "@": "hunk" };
  const OPEN_LINES = 400;

  /** A unified diff as files: {name, first (line of the text), lines}. What stands before the first file is kept. */
  View.filesOf = (text) => {
    const files = [];
    const git = /^diff --git /m.test(text);
    text.replace(/\n$/, "").split("\n").forEach((line, n, lines) => {
      const begins = git ? line.startsWith("diff --git ") : line.startsWith("--- ") && (lines[n + 1] || "").startsWith("+++ ");
      if (begins || !files.length) files.push({ name: "", first: n, lines: [] });
      const file = files[files.length - 1];
      file.lines.push(line);
      const named = /^(?:\+\+\+|---) (?:[ab]\/)?([^\t]+)/.exec(line);
      if (named && named[1] !== "/dev/null") file.name = named[1];
      else if (!file.name && line.startsWith("diff --git ")) file.name = line.replace(/^diff --git a\/(.*?) b\/.*$/, "$1");
    });
    return files;
  };
  const lineOf = (line, inHunk) => {
    const kind = inHunk ? KINDS[line[0]] : line.startsWith("@@") ? "hunk" : "meta";
    return View.h("span", { class: `line ${kind || ""}` }, View.visible(line), "\n");
  };
  const body = (file, overlapping, other) => {
    const pre = View.h("pre", { class: "diff", tabindex: "0", role: "region", "aria-label": `diff of ${file.name}` });
    let part = pre, inHunk = false;
    file.lines.forEach((line, n) => {
      if (line.startsWith("@@")) {
        inHunk = true;
        part = pre;
        if (overlapping.includes(file.first + n)) {
          part = View.h("span", { class: "overlap" }, View.h("span", { class: "marked" }, `${other} changes the same lines\n`));
          pre.append(part);
        }
      }
      part.append(lineOf(line, inHunk));
    });
    return pre;
  };
  /** A diff, its files folded where it is long. */
  View.diff = (text, overlapping = [], other = "the other patch") => {
    const files = View.filesOf(text);
    const long = files.reduce((sum, file) => sum + file.lines.length, 0) > OPEN_LINES;
    return files.map((file) => {
      const mine = overlapping.filter((line) => line >= file.first && line < file.first + file.lines.length);
      const plus = file.lines.filter((line) => line[0] === "+" && !line.startsWith("+++")).length;
      const minus = file.lines.filter((line) => line[0] === "-" && !line.startsWith("---")).length;
      const title = [View.h("code", {}, View.visible(file.name || "diff")), ` +${plus} −${minus}`,
        mine.length ? View.h("span", { class: "marked" }, ` ${View.plural(mine.length, "overlapping hunk")}`) : ""];
      return View.fold(title, () => body(file, mine, other), !long || mine.length > 0);
    });
  };
})();
