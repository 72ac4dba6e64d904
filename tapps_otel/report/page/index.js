"use strict";
(() => {
  const { $, counted, entry, known, make, percent, sign, took } = tapps;
  const { runs } = tapps.data();
  const longest = Math.max(1, ...runs.map((run) => run.total));

  // -- a cell for each column

  function statusCell(run) {
    const [char, style] = sign(run.status);
    return make("span", { class: `badge ${style}-text`, text: `${char} ${run.status}` });
  }
  const runCell = (run) => make("a", { href: run.page, text: run.id });
  const timeCell = (run) => make("span", { class: "together", text: run.start });

  // The executions of a run on a scale that all runs share.
  function strip(run) {
    const made = run.downtimes.map(([start, end]) =>
      make("div", { class: "down", style: across(start, end) }),
    );
    for (const [start, end, status] of run.executions)
      made.push(make("div", { class: `bar ${known(status)}`, style: across(start, end) }));
    for (const [, end, , killed] of run.executions)
      if (killed)
        made.push(make("div", { class: "crash", style: { left: percent(end / longest) } }));
    return make("div", { class: "strip", "aria-hidden": "true" }, ...made);
  }
  const across = (start, end) => ({
    left: percent(start / longest),
    width: percent((end - start) / longest),
  });
  function tookCell(run) {
    const down = run.down ? `, ${took(run.down)} down` : "";
    return make(
      "div",
      { class: "took-cell" },
      make("span", { class: "together", text: `${took(run.total)}${down}` }),
      strip(run),
    );
  }
  function stepsCell(run) {
    const made = make("span", {}, `${run.finished} of ${run.steps}`);
    if (run.failed)
      made.append(make("span", { class: "bad-text", text: `, ${run.failed} failed` }));
    return made;
  }
  const aboutCell = (run) =>
    make("span", { class: run.about_style ? `${run.about_style}-text` : "", text: run.about });

  const COLUMNS = [
    ["Status", "status", statusCell],
    ["Run", "id", runCell],
    ["Workflow", "name", (run) => make("span", { text: run.name })],
    ["Started (UTC)", "start", timeCell],
    ["Took", "total", tookCell],
    ["Steps", "steps", stepsCell],
    ["About", "about", aboutCell],
  ];
  // Of times and counts, the largest come first.
  const DOWN_FIRST = ["start", "total", "steps"];

  // -- rows

  let order = ["start", -1];
  const filter = { text: "", status: "", name: "" };
  const elements = new Map();
  for (const run of runs) {
    run.words = [run.id, run.name, run.about, run.status].join("\n").toLowerCase();
    const cells = COLUMNS.map(([title, field, cell]) =>
      field === "id"
        ? make("th", { scope: "row", "data-title": title }, cell(run))
        : make("td", { "data-title": title }, cell(run)),
    );
    elements.set(run, make("tr", {}, ...cells));
  }

  function matches(run) {
    if (filter.status && run.status !== filter.status) return false;
    if (filter.name && run.name !== filter.name) return false;
    return !filter.text || run.words.includes(filter.text);
  }
  function compare(a, b) {
    const [field, way] = order;
    if (a[field] === b[field]) return 0;
    return a[field] < b[field] ? -way : way;
  }
  function refresh() {
    const shown = runs.filter(matches).sort(compare);
    $("shown").replaceChildren(...shown.map((run) => elements.get(run)));
    const all = counted(runs.length, "run");
    $("count").textContent = shown.length === runs.length ? all : `${shown.length} of ${all}`;
    for (const head of $("heads").children) {
      const isOrder = head.dataset.field === order[0];
      const way = order[1] > 0 ? "ascending" : "descending";
      if (isOrder) head.setAttribute("aria-sort", way);
      else head.removeAttribute("aria-sort");
    }
  }

  // -- heads and tools

  for (const [title, field] of COLUMNS) {
    const button = make("button", { type: "button", text: title });
    button.addEventListener("click", () => {
      const first = DOWN_FIRST.includes(field) ? -1 : 1;
      order = [field, order[0] === field ? -order[1] : first];
      refresh();
    });
    $("heads").append(make("th", { scope: "col", "data-field": field }, button));
  }
  const distinct = (field) => [...new Set(runs.map((run) => run[field]))].filter(Boolean).sort();
  for (const [id, field, any] of [
    ["by-status", "status", "any status"],
    ["by-workflow", "name", "any workflow"],
  ]) {
    const select = $(id),
      values = distinct(field);
    select.append(
      make("option", { value: "", text: any }),
      ...values.map((value) => make("option", { value, text: value })),
    );
    select.hidden = values.length < 2;
    select.addEventListener("change", () => {
      filter[field] = select.value;
      refresh();
    });
  }
  $("search").addEventListener("input", () => {
    filter.text = $("search").value.trim().toLowerCase();
    refresh();
  });
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "/" && !event.target.closest("input, select")) {
      event.preventDefault();
      $("search").focus();
    } else if (event.key === "Escape") {
      for (const id of ["search", "by-status", "by-workflow"]) $(id).value = "";
      Object.assign(filter, { text: "", status: "", name: "" });
      refresh();
    }
  });

  // -- what is worth knowing first

  const total = (field) => runs.reduce((sum, run) => sum + run[field], 0);
  function fact(label, text, style) {
    return make(
      "div",
      { class: style || "" },
      make("dt", { text: label }),
      make("dd", { text }),
    );
  }
  const byStatus = new Map();
  for (const run of runs) byStatus.set(run.status, (byStatus.get(run.status) || 0) + 1);
  $("facts").append(
    ...[...byStatus].map(([status, number]) => fact(status, counted(number, "run"), sign(status)[1])),
    fact("steps", `${total("finished")} of ${total("steps")} finished`),
    fact("time", `${took(total("total") - total("down"))} running, ${took(total("down"))} down`),
  );
  $("legend").append(entry("bar", "executed"));
  if (runs.some((run) => run.executions.some((one) => one[3])))
    $("legend").append(entry("crash", "killed"));
  if (runs.some((run) => run.downtimes.length)) $("legend").append(entry("down", "down"));

  tapps.drawn();
  tapps.theme()();
  refresh();
})();
