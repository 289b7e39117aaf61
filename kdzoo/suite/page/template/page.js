(() => {
  "use strict";
  const DATA = JSON.parse(document.getElementById("data").textContent);
  const AT_ONCE = 300; // rows of a list that are shown before a reader asks for all

  // Frames: column by column in the file, row by row for Vega and tables.
  const column = (packed, rows) => {
    if (Array.isArray(packed)) return packed;
    return "all" in packed ? Array(rows).fill(packed.all) : packed.at.map((place) => packed.of[place]);
  };
  const unpacked = new Map();
  const rowsOf = (name) => {
    if (!unpacked.has(name)) {
      const { rows, columns } = DATA.frames[name];
      const entries = Object.entries(columns).map(([key, packed]) => [key, column(packed, rows)]);
      unpacked.set(name, Array.from({ length: rows }, (_, at) => Object.fromEntries(entries.map(([key, values]) => [key, values[at]]))));
    }
    return unpacked.get(name);
  };

  const element = (tag, properties = {}, ...children) => {
    const made = Object.assign(document.createElement(tag), properties);
    made.append(...children);
    return made;
  };

  // Charts are drawn as they come near, and all others when there is time, so that a print has them.
  const draw = async (figure) => {
    if (figure.dataset.drawn) return;
    figure.dataset.drawn = "begun";
    const { frame, spec } = DATA.charts[figure.dataset.chart];
    const place = figure.querySelector(".chart");
    const whole = { ...DATA.specs[spec], };
    whole.datasets = { ...whole.datasets, rows: rowsOf(frame) };
    const { view } = await vegaEmbed(place, whole, {
      renderer: "svg",
      config: DATA.config,
      actions: { export: true, source: false, compiled: false, editor: false },
      downloadFileName: figure.querySelector("h4").textContent,
    });
    place.view = view;
    place.querySelector("summary")?.setAttribute("aria-label", "Save this chart");
    figure.dataset.drawn = "yes";
  };
  const figures = [...document.querySelectorAll("figure[data-chart]")];
  const nearby = new IntersectionObserver(
    (entries) => entries.forEach((entry) => entry.isIntersecting && draw(entry.target)),
    { rootMargin: "800px" },
  );
  figures.forEach((figure) => nearby.observe(figure));
  const whenIdle = window.requestIdleCallback ?? ((act) => setTimeout(act, 30));
  const drawTheRest = () => {
    const next = figures.find((figure) => !figure.dataset.drawn);
    if (next) draw(next).finally(() => whenIdle(drawTheRest));
  };
  window.addEventListener("load", () => whenIdle(drawTheRest));
  window.addEventListener("beforeprint", () => figures.forEach(draw));

  // Tables: a heading sorts, a word filters, a box chooses a column.
  const valueOf = (cell) => {
    const text = cell.dataset.value ?? cell.textContent.trim();
    const number = Number.parseFloat(text.replace(/^</, ""));
    return text === "" ? null : Number.isNaN(number) ? text : number;
  };
  const compare = (a, b) => (typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b)));
  const sort = (table, at) => {
    const heads = [...table.tHead.rows[0].cells];
    const up = heads[at].getAttribute("aria-sort") === "descending" || !heads[at].hasAttribute("aria-sort") && !isNumeric(table, at);
    heads.forEach((head) => head.removeAttribute("aria-sort"));
    heads[at].setAttribute("aria-sort", up ? "ascending" : "descending");
    const rows = [...table.tBodies[0].rows].map((row) => [valueOf(row.cells[at]), row]);
    const known = rows.filter(([value]) => value !== null).sort(([a], [b]) => (up ? compare(a, b) : compare(b, a)));
    table.tBodies[0].append(...known.map(([, row]) => row), ...rows.filter(([value]) => value === null).map(([, row]) => row));
  };
  const isNumeric = (table, at) => [...table.tBodies[0].rows].some((row) => typeof valueOf(row.cells[at]) === "number");
  const showColumn = (table, at, shown) => {
    for (const row of table.querySelectorAll("tr")) row.cells[at].hidden = !shown;
  };

  const addTools = (box) => {
    const table = box.querySelector("table");
    const heads = [...table.tHead.rows[0].cells];
    const names = heads.map((head) => head.textContent);
    heads.forEach((head, at) => {
      const button = element("button", { type: "button", textContent: names[at] });
      button.addEventListener("click", () => sort(table, at));
      head.replaceChildren(button);
    });
    const count = element("output");
    const search = element("input", { type: "search", placeholder: "words in a row" });
    const filter = () => {
      const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
      const rows = [...table.tBodies[0].rows];
      rows.forEach((row) => (row.hidden = !words.every((word) => row.textContent.toLowerCase().includes(word))));
      const shown = rows.filter((row) => !row.hidden).length;
      count.textContent = words.length ? `${shown} of ${rows.length} rows` : "";
    };
    search.addEventListener("input", filter);
    const boxes = element("fieldset", {}, element("legend", { textContent: "Columns that are shown" }));
    heads.forEach((head, at) => {
      const shown = !("off" in head.dataset);
      if (!shown) showColumn(table, at, false);
      if (table.tBodies[0].rows[0]?.cells[at].tagName === "TH") return;
      const tick = element("input", { type: "checkbox", checked: shown });
      tick.addEventListener("change", () => showColumn(table, at, tick.checked));
      boxes.append(element("label", {}, tick, ` ${names[at]}`));
    });
    const columns = element("details", {}, element("summary", { textContent: "Columns" }), boxes);
    box.prepend(element("div", { className: "tools" }, element("label", {}, "Filter ", search), count, columns));
  };
  document.querySelectorAll('.table-box[data-tools="yes"]').forEach(addTools);

  // Lists of numbers and runs become tables when they are opened.
  const shown = (value) => {
    if (value === null) return "";
    return typeof value === "number" && !Number.isInteger(value) ? String(Number(value.toPrecision(5))) : String(value);
  };
  const tableOf = (rows, caption) => {
    const names = Object.keys(rows[0] ?? {}).filter((name) => rows.some((row) => row[name] !== null));
    const isText = Object.fromEntries(names.map((name) => [name, rows.every((row) => typeof row[name] !== "number")]));
    const head = element("tr", {}, ...names.map((name) => element("th", { scope: "col", textContent: name, className: isText[name] ? "text" : "" })));
    const body = rows.map((row) =>
      element("tr", {}, ...names.map((name, at) => {
        const cell = element(at ? "td" : "th", { textContent: shown(row[name]), className: isText[name] ? "text" : "" });
        if (!at) cell.scope = "row";
        if (typeof row[name] === "number") cell.dataset.value = row[name];
        return cell;
      })),
    );
    const table = element("table", {}, element("caption", {}, element("span", { textContent: caption })), element("thead", {}, head), element("tbody", {}, ...body));
    const scroll = element("div", { className: "scroll", tabIndex: 0 }, table);
    scroll.setAttribute("role", "region");
    scroll.setAttribute("aria-label", caption);
    const box = element("div", { className: "table-box" }, scroll);
    addTools(box);
    return box;
  };
  const fill = (list, most) => {
    const rows = rowsOf(list.dataset.frame);
    list.querySelector(".table-box, button")?.remove();
    list.querySelectorAll(".table-box, .more").forEach((old) => old.remove());
    list.append(tableOf(rows.slice(0, most), list.dataset.caption));
    if (rows.length > most) {
      const more = element("button", { type: "button", className: "more", textContent: `Show all ${rows.length} rows` });
      more.addEventListener("click", () => fill(list, rows.length));
      list.append(more);
    }
  };
  document.querySelectorAll("details.lazy").forEach((list) =>
    list.addEventListener("toggle", () => list.open && !list.querySelector("table") && fill(list, AT_ONCE)),
  );
})();
