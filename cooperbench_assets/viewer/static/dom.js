"use strict";
// Elements and texts. Whatever agents wrote is data: it becomes text nodes here, and never markup.
var View = window.View || (window.View = {});

(() => {
  const SVG = "http://www.w3.org/2000/svg";

  /** An element with attributes (functions become listeners) and children (strings become text). */
  function fill(node, attributes, children) {
    for (const [name, value] of Object.entries(attributes || {})) {
      if (value === null || value === undefined || value === false) continue;
      if (typeof value === "function") node.addEventListener(name, value);
      else node.setAttribute(name, value === true ? "" : String(value));
    }
    for (const child of children.flat(Infinity)) {
      if (child === null || child === undefined || child === false) continue;
      node.append(child instanceof Node ? child : document.createTextNode(String(child)));
    }
    return node;
  }
  View.h = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);
  View.svg = (tag, attributes, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);

  const CONTROL = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g;
  const PICTURE = (character) => {
    const code = character.codePointAt(0);
    if (code < 0x20) return String.fromCharCode(0x2400 + code);
    return code === 0x7f ? "\u2421" : `\u27e8U+${code.toString(16).toUpperCase().padStart(4, "0")}\u27e9`;
  };
  /** Text with every control character shown as one (ESC as ␛), so that nothing in it hides or reorders the rest. */
  View.visible = (text) => String(text).replace(/\r\n/g, "\n").replace(CONTROL, PICTURE);

  const PIECE = 20000;
  /** A block of text as it is; what is longer than a screenful of pages is shown piece by piece. */
  View.block = (text, attributes = {}) => {
    const shown = View.visible(text === null || text === undefined ? "" : text);
    const pre = View.h("pre", { tabindex: "0", role: "region", "aria-label": "text", ...attributes });
    let end = 0;
    const more = View.h("button", { type: "button", class: "more", click: () => extend() });
    const extend = () => {
      const next = Math.min(shown.length, end + PIECE);
      pre.append(document.createTextNode(shown.slice(end, next)));
      end = next;
      more.textContent = `Show more: ${View.size(shown.length - end)} of ${View.size(shown.length)} left`;
      more.hidden = end >= shown.length;
    };
    extend();
    return shown.length > PIECE ? View.h("div", {}, pre, more) : pre;
  };

  View.number = (value, digits = 0) =>
    value === null || value === undefined ? "–" : value.toLocaleString("en-US", { maximumFractionDigits: digits });
  View.dollars = (value) => (value === null || value === undefined ? "–" : `$${value.toFixed(value < 1 ? 4 : 2)}`);
  View.size = (bytes) => {
    if (bytes === null || bytes === undefined) return "–";
    if (bytes < 1000) return `${bytes} B`;
    return bytes < 1e6 ? `${(bytes / 1e3).toFixed(1)} kB` : `${(bytes / 1e6).toFixed(1)} MB`;
  };
  /** Seconds as a clock: 1:02:03, 2:03.4; below one as milliseconds. */
  View.clock = (seconds) => {
    if (seconds === null || seconds === undefined) return "–";
    const sign = seconds < 0 ? "−" : "", all = Math.abs(seconds), hours = Math.floor(all / 3600);
    const minutes = Math.floor(all / 60) % 60, rest = all % 60, two = (n) => String(n).padStart(2, "0");
    if (all > 0 && all < 1) return `${sign}${(all * 1000).toFixed(all < 0.01 ? 1 : 0)} ms`;
    if (hours) return `${sign}${hours}:${two(minutes)}:${two(Math.floor(rest))}`;
    return `${sign}${minutes}:${two(Math.floor(rest))}.${Math.floor((rest * 10) % 10)}`;
  };
  View.facts = (pairs) => View.h("dl", { class: "facts" }, pairs.filter(([, value]) => value !== null && value !== undefined && value !== "")
    .map(([name, value]) => View.h("div", {}, View.h("dt", {}, name), View.h("dd", {}, value))));
  View.plural = (n, noun) => `${View.number(n)} ${noun}${n === 1 ? "" : "s"}`;
  View.words = (name) => String(name).replace(/_/g, " ");
  View.cut = (text, length) => (text.length <= length ? text : `${text.slice(0, length - 1)}…`);

  /** What a pair came to, as a word on its colour. */
  View.badge = (outcome, detail) =>
    View.h("span", { class: "badge", "data-outcome": outcome }, View.words(outcome), detail ? `: ${View.words(detail)}` : "");
  /** A button that stays pressed or not, as `change(chip, pressed)` finds it. */
  View.chip = (text, pressed, change, attributes = {}) =>
    View.h("button", { type: "button", class: "chip", "aria-pressed": String(pressed), ...attributes, click: ({ currentTarget: chip }) => {
      const now = chip.getAttribute("aria-pressed") !== "true";
      chip.setAttribute("aria-pressed", String(now));
      change(chip, now);
    } }, text);
  View.noteText = (note) => View.h("p", { class: "note-text" }, note.labels.map((one) => View.h("span", { class: "mark" }, one)), " ", View.visible(note.text));
  View.link = (href, ...children) => View.h("a", { href }, ...children);
  View.note = (...children) => View.h("p", { class: "note" }, ...children);
  View.table = (heads, rows, attributes = {}) =>
    View.h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": attributes.label || "table" },
      View.h("table", { class: attributes.class },
        attributes.label && View.h("caption", {}, attributes.label),
        View.h("thead", {}, View.h("tr", {}, heads.map((head) => View.h("th", { scope: "col" }, head)))),
        View.h("tbody", {}, rows)));
  View.fold = (summary, content, open = false) => {
    const details = View.h("details", { open }, View.h("summary", {}, summary));
    let made = false;
    const make = () => {
      if (made || !details.open) return;
      made = true;
      details.append(...[typeof content === "function" ? content() : content].flat(Infinity).filter(Boolean));
    };
    details.addEventListener("toggle", make);
    make();
    return details;
  };
})();
