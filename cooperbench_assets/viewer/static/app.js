"use strict";
// Which page is shown: the part of the address behind # names it, so that the same links work in files.
(() => {
  const main = document.getElementById("main");
  const trail = document.getElementById("trail");
  const status = document.getElementById("status");
  let turn = 0;

  /** The address of a page: parts of its path, and what is chosen on it. */
  View.to = (parts, query = {}) => {
    const chosen = Object.entries(query).filter(([, value]) => value !== null && value !== undefined && value !== "");
    const text = new URLSearchParams(chosen).toString();
    return `#/${parts.map(encodeURIComponent).join("/")}${text ? `?${text}` : ""}`;
  };
  View.here = () => {
    const [path, query] = location.hash.replace(/^#\/?/, "").split(/\?(.*)/s);
    let parts = [];
    try {
      parts = path.split("/").filter(Boolean).map(decodeURIComponent);
    } catch {
      parts = ["?"];
    }
    return { parts, query: Object.fromEntries(new URLSearchParams(query || "")) };
  };
  /** Change what is chosen on this page without drawing it anew. */
  View.choose = (changes) => {
    const { parts, query } = View.here();
    history.replaceState(history.state, "", View.to(parts, { ...query, ...changes }));
  };
  View.say = (text) => {
    status.textContent = "";
    status.textContent = text;
  };
  View.trail = (steps, title) => {
    document.title = `${title} · CooperBench viewer`;
    trail.replaceChildren(...steps.flatMap(([text, href], n) => [
      n ? View.h("span", { "aria-hidden": "true" }, " / ") : null,
      href ? View.link(href, text) : View.h("span", { "aria-current": "page" }, text),
    ]).filter(Boolean));
  };
  View.keys = {};

  async function home(show) {
    const index = await View.load("index", { fresh: !View.inBundle });
    if (index.sources.length === 1 && !Object.keys(index.broken).length) {
      location.replace(View.to(["e", index.sources[0].name]));
      return;
    }
    View.trail([["Experiments"]], "Experiments");
    show(View.h("h1", {}, "Experiments"),
      View.h("ul", { class: "plain" }, index.sources.map((one) => View.h("li", {},
        View.link(View.to(["e", one.name]), one.name), ` ${View.plural(one.cells, "cell")}`))),
      Object.entries(index.broken).map(([name, why]) => View.h("p", { class: "problem" }, `${name}: ${why}`)),
      !index.sources.length && View.note("Nothing is there yet: run ", View.h("code", {}, "cooperbench-assets demo"), "."));
  }

  const pages = (parts) => {
    if (!parts.length) return home;
    if (parts[0] !== "e" || !parts[1]) return null;
    if (parts.length === 2) return View.experimentPage;
    if (parts.length === 3 && parts[2] === "pairs") return View.listPage;
    return parts.length === 7 || parts.length === 8 ? View.pairPage : null;
  };

  async function draw() {
    const mine = (turn += 1);
    const { parts, query } = View.here();
    const page = pages(parts);
    View.keys = {};
    const show = (...content) => {
      if (mine !== turn) return false;
      main.replaceChildren(...content.flat(Infinity).filter((one) => one instanceof Node));
      return true;
    };
    main.setAttribute("aria-busy", "true");
    try {
      if (!page) throw new Error("There is no such page.");
      await page(show, parts.slice(1), query, () => mine === turn);
    } catch (error) {
      show(View.h("h1", {}, "This cannot be shown"), View.h("p", { class: "problem" }, View.visible(error.message)),
        View.h("p", {}, View.link("#/", "To the experiments")));
    }
    if (mine === turn) {
      main.removeAttribute("aria-busy");
      main.dataset.drawn = location.hash;
    }
  }

  let last = "";
  addEventListener("hashchange", () => {
    const path = location.hash.split("?")[0];
    if (location.hash === "#main") return;
    draw().then(() => {
      if (path !== last && document.activeElement === document.body) main.focus({ preventScroll: true });
      last = path;
    });
    if (path !== last) scrollTo(0, 0);
  });

  const COMMON = { "?": ["these keys", () => help.click()], h: ["the experiment's page", () => up(1)], u: ["one page up", () => up(0)] };
  const up = (whole) => {
    const { parts } = View.here();
    location.hash = parts.length > 3 && !whole ? View.to(["e", parts[1], "pairs"]) : View.to(parts.length > 2 ? ["e", parts[1]] : []);
  };
  const help = document.getElementById("help");
  help.addEventListener("click", () => {
    const all = Object.entries({ ...COMMON, ...View.keys });
    const dialog = View.h("dialog", { "aria-label": "Keys", close: () => dialog.remove() },
      View.h("h2", {}, "Keys"),
      View.facts(all.map(([key, [text]]) => [View.h("kbd", {}, key), text])),
      View.h("button", { type: "button", click: () => dialog.close() }, "Close"));
    document.body.append(dialog);
    dialog.showModal();
  });
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
    if (event.target.closest("input, textarea, select")) return;
    const known = View.keys[event.key] || COMMON[event.key];
    if (!known) return;
    event.preventDefault();
    known[1]();
  });
  draw().then(() => { last = location.hash.split("?")[0]; });
})();
