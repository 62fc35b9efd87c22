"use strict";
// Where data comes from: the server by fetch, a bundle by scripts, because a page of file:// may not fetch.
(() => {
  const waiting = new Map();
  const kept = new Map();
  const KEEP = 60;
  const IN_BUNDLE = document.documentElement.dataset.source === "bundle";
  View.inBundle = IN_BUNDLE;

  /** A file of a bundle calls this with its key and its data. */
  View.take = (key, data) => {
    const waits = waiting.get(key);
    waiting.delete(key);
    if (waits) waits.done(data);
  };
  const byScript = (key) =>
    new Promise((done, fail) => {
      waiting.set(key, { done });
      const script = document.createElement("script");
      script.src = `data/${path(key)}.js`;
      script.onload = () => {
        script.remove();
        if (waiting.delete(key)) fail(new Error(`${key}: its file does not hold it`));
      };
      script.onerror = () => {
        script.remove();
        waiting.delete(key);
        fail(new Error(`${key} is not in this bundle`));
      };
      document.head.append(script);
    });
  const byFetch = async (key, query) => {
    const chosen = query ? `?${new URLSearchParams(query)}` : "";
    const answer = await fetch(`data/${path(key)}${chosen}`, { headers: { Accept: "application/json" } });
    if (answer.ok) return answer.json();
    const said = await answer.text();
    throw new Error(View.cut(said || `the viewer answered ${answer.status}`, 500));
  };
  const path = (key) => key.split("/").map(encodeURIComponent).join("/");

  /** The data of a key: of a page, or of a part of one. What was loaded lately is not loaded again. */
  View.load = (key, { fresh = false, query } = {}) => {
    if (query) return byFetch(key, query);
    if (fresh) kept.delete(key);
    if (!kept.has(key)) {
      const found = (IN_BUNDLE ? byScript : byFetch)(key);
      found.catch(() => kept.delete(key));
      kept.set(key, found);
      if (kept.size > KEEP) kept.delete(kept.keys().next().value);
    }
    return kept.get(key);
  };
})();
