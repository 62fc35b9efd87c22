"use strict";
// Lists of which only what is on the screen is in the document: rows of a table, steps of a transcript.
(() => {
  /**
   * A scrolling box over `count` rows, each `estimate` pixels high until it was seen.
   * `make(index)` gives a row's element; `after(range)` is called when other rows are shown.
   */
  View.virtual = ({ box, count, estimate, make, after, grow, margin = 600 }) => {
    const heights = new Float64Array(count).fill(estimate);
    let tops = null;
    const sheet = View.h("div", { class: "sheet", role: "presentation" });
    const shown = new Map();
    let from = 0, to = 0, scheduled = false;
    box.replaceChildren(sheet);

    const layout = () => {
      tops = new Float64Array(count + 1);
      for (let n = 0; n < count; n += 1) tops[n + 1] = tops[n] + heights[n];
      sheet.style.height = `${tops[count]}px`;
      if (grow) grow(tops[count]);
    };
    const at = (y) => {
      let low = 0, high = count;
      while (low < high) {
        const middle = (low + high) >> 1;
        if (tops[middle + 1] <= y) low = middle + 1;
        else high = middle;
      }
      return Math.min(low, Math.max(0, count - 1));
    };
    const place = (row, index) => {
      row.style.transform = `translateY(${tops[index]}px)`;
    };
    const measure = () => {
      let changed = false;
      const anchor = at(box.scrollTop), offset = box.scrollTop - tops[anchor];
      for (const [index, row] of shown) {
        const height = row.getBoundingClientRect().height;
        if (height && Math.abs(height - heights[index]) > 0.5) {
          heights[index] = height;
          changed = true;
        }
      }
      if (!changed) return;
      layout();
      for (const [index, row] of shown) place(row, index);
      if (Math.abs(box.scrollTop - tops[anchor] - offset) > 1) box.scrollTop = tops[anchor] + offset;
    };
    const render = () => {
      scheduled = false;
      if (!count) return;
      from = at(Math.max(0, box.scrollTop - margin));
      to = Math.min(count, at(box.scrollTop + box.clientHeight + margin) + 1);
      const focused = document.activeElement;
      for (const [index, row] of shown) {
        if ((index < from || index >= to) && !row.contains(focused)) {
          row.remove();
          shown.delete(index);
        }
      }
      let before = null;
      for (let index = to - 1; index >= from; index -= 1) {
        let row = shown.get(index);
        if (!row) {
          row = make(index);
          row.classList.add("virtual");
          shown.set(index, row);
          sheet.insertBefore(row, before);
          place(row, index);
        }
        before = row;
      }
      measure();
      if (after) after({ from, to, tops });
    };
    const schedule = () => {
      if (scheduled) return;
      scheduled = true;
      requestAnimationFrame(render);
    };
    const watcher = new ResizeObserver(schedule);
    box.addEventListener("scroll", schedule, { passive: true });
    watcher.observe(box);
    layout();
    render();

    const list = {
      refresh: (index) => {
        const row = shown.get(index);
        if (row) {
          const made = make(index);
          made.classList.add("virtual");
          row.replaceWith(made);
          shown.set(index, made);
          place(made, index);
        }
        render();
      },
      remeasure: render,
      row: (index) => shown.get(index),
      /** Bring a row into view; what is above it may still change its height, so that it is done until it stays. */
      reveal: (index, tries = 4) => {
        const middle = Math.max(0, tops[index] - box.clientHeight / 3);
        box.scrollTop = middle;
        render();
        if (tries && Math.abs(tops[index] - box.clientHeight / 3 - box.scrollTop) > 2 && box.scrollTop < box.scrollHeight - box.clientHeight - 2)
          requestAnimationFrame(() => box.isConnected && list.reveal(index, tries - 1));
        return shown.get(index);
      },
      visible: () => [from, to],
    };
    return list;
  };

  /**
   * A table that can be sorted, over any number of rows.
   * `columns`: {name, title, value(row), cell(row), width (in rem), numeric, description}.
   */
  View.grid = ({ label, columns, rows, sort, onSort }) => {
    const rowHeight = 2 * parseFloat(getComputedStyle(document.documentElement).fontSize);
    const widths = columns.map((column) => `${column.width || 7}rem`).join(" ");
    const order = View.sorted(rows, columns, sort);
    const head = View.h("div", { class: "grid-row grid-head", role: "row", "aria-rowindex": 1 },
      columns.map((column) => {
        const state = sort && sort.name === column.name ? (sort.down ? "descending" : "ascending") : "none";
        return View.h("div", { role: "columnheader", "aria-sort": state, title: column.description, class: column.numeric && "number" },
          column.value
            ? View.h("button", { type: "button", click: () => onSort({ name: column.name, down: state === "ascending" }) }, column.title)
            : column.title);
      }));
    const body = View.h("div", { class: "grid-body", role: "rowgroup", tabindex: "0", "aria-label": `${label}: rows` });
    const all = View.h("div", { class: "grid", role: "table", "aria-label": label, "aria-rowcount": rows.length + 1 },
      View.h("div", { role: "rowgroup", class: "grid-top" }, head), body);
    all.style.setProperty("--columns", widths);
    body.addEventListener("scroll", () => { head.style.transform = `translateX(${-body.scrollLeft}px)`; }, { passive: true });
    const make = (index) => {
      const row = order[index];
      return View.h("div", { class: "grid-row", role: "row", "aria-rowindex": index + 2 },
        columns.map((column) => View.h("div", { role: "cell", class: column.numeric && "number" }, column.cell(row))));
    };
    requestAnimationFrame(() => View.virtual({ box: body, count: order.length, estimate: rowHeight, make }));
    return all;
  };
  View.sorted = (rows, columns, sort) => {
    const column = sort && columns.find((one) => one.name === sort.name);
    if (!column) return rows;
    const missing = (value) => value === null || value === undefined || value === "";
    const keyed = rows.map((row) => [column.value(row), row]);
    const direction = sort.down ? -1 : 1;
    keyed.sort(([a], [b]) => {
      if (missing(a) || missing(b)) return missing(a) - missing(b);
      return direction * (typeof a === "number" && typeof b === "number" ? a - b : a < b ? -1 : a > b ? 1 : 0);
    });
    return keyed.map(([, row]) => row);
  };
})();
