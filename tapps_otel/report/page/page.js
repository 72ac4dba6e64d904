"use strict";
(() => {
  const { $, counted, entry, known, make, percent, sign, took } = tapps;
  const run = tapps.data();
  const ROW = 26,
    MOST_PRINTED = 3000;

  const startMs = Date.parse(run.start.slice(0, 23) + "Z"),
    startRest = Number(run.start.slice(23, 29)) / 1e6;
  function clock(ms) {
    const date = new Date(startMs + ms + startRest);
    return Number.isNaN(date.getTime()) ? "?" : date.toISOString().slice(11, 23);
  }

  // -- rows: executions, then steps

  const executionRows = run.executions.map((one) => ({
    execution: one,
    name: `execution ${one.number}`,
    depth: 0,
    status: one.status,
    start: one.start,
    end: one.end,
    attempts: [{ ...one, number: null, execution: one.number }],
    inside: [],
    parent: null,
    critical: 0,
  }));
  const sum = (parts) => (parts || []).reduce((total, [start, end]) => total + end - start, 0);
  const stepRows = run.steps.map((step) => {
    const attempts = step.attempts,
      last = attempts[attempts.length - 1];
    return {
      step,
      name: step.name,
      depth: step.depth,
      status: last.status,
      attempts,
      inside: [],
      parent: null,
      start: attempts[0].start,
      end: last.end,
      took: attempts.reduce((total, one) => total + one.end - one.start, 0),
      critical: attempts.reduce((total, one) => total + sum(one.critical), 0),
      open: true,
      words: [
        step.id,
        step.agent,
        step.action,
        step.key,
        last.question,
        last.reason,
        last.error && last.error.text,
        last.gate && last.gate[1],
      ]
        .filter(Boolean)
        .join("\n")
        .toLowerCase(),
    };
  });
  stepRows.forEach((row) => {
    if (row.step.parent !== undefined) {
      row.parent = stepRows[row.step.parent];
      row.parent.inside.push(row);
    }
  });
  // Of a span whose process was killed, or still works on it, no log has the end.
  const spanTook = (start, end) => (end === null ? "no end in the log" : took(end - start));
  const eventsOf = stepRows.map(() => []),
    spansOf = stepRows.map(() => []);
  run.events.forEach((event) => {
    if (event[3] !== null) eventsOf[event[3]].push(event);
  });
  run.spans.forEach((span) => {
    if (span[0] !== null) spansOf[span[0]].push(span);
  });
  stepRows.forEach((row, at) => {
    row.at = at;
  });
  // Of many steps, the inner ones are shown where something went wrong.
  if (stepRows.length > 300) {
    stepRows.forEach((row) => {
      row.open = false;
    });
    for (const row of stepRows) {
      if (!["completed", "skipped"].includes(row.status))
        for (let one = row.parent; one && !one.open; one = one.parent) one.open = true;
    }
  }

  let rows = [],
    chosen = null,
    critical = true,
    toScale = false;
  let view = [0, 1];
  const filter = { text: "", status: "", agent: "", attempt: "" };

  // -- the scale: from time to a part of the whole width, where long downtime takes little room

  let knots = [];
  function rescale() {
    const total = Math.max(run.total, 0.001);
    const down = run.downtimes.reduce((all, [start, end]) => all + end - start, 0);
    const running = Math.max(total - down, 0.001);
    const long = [];
    for (const one of [...run.downtimes].sort((a, b) => a[0] - b[0])) {
      if (one[1] - one[0] > 0.2 * running && (!long.length || one[0] >= long[long.length - 1][1]))
        long.push(one);
    }
    $("scale").hidden = !long.length;
    const cut = toScale ? [] : long;
    const gap = Math.min(0.1, 0.3 / Math.max(1, cut.length));
    const hidden = cut.reduce((all, [start, end]) => all + end - start, 0);
    const unit = (1 - gap * cut.length) / Math.max(total - hidden, 0.001);
    knots = [[0, 0]];
    for (const [start, end] of cut) {
      const [time, at] = knots[knots.length - 1],
        begin = at + (start - time) * unit;
      knots.push([start, begin], [end, begin + gap]);
    }
    const [time, at] = knots[knots.length - 1];
    knots.push([total, Math.max(at + (total - time) * unit, at + 1e-9)]);
  }

  function between(from, to, value) {
    let low = 0,
      high = knots.length - 1;
    while (low + 1 < high) {
      const middle = (low + high) >> 1;
      if (knots[middle][from] <= value) low = middle;
      else high = middle;
    }
    const a = knots[low],
      b = knots[low + 1],
      length = b[from] - a[from];
    return length ? a[to] + ((b[to] - a[to]) * (value - a[from])) / length : a[to];
  }
  const isCut = (start) =>
    knots.some(([time], at) => at % 2 === 1 && at + 1 < knots.length && time === start);
  const place = (ms) => between(0, 1, ms);
  const timeAt = (part) => between(1, 0, part);
  const inView = (ms) => (place(ms) - view[0]) / (view[1] - view[0]);

  // -- which rows are shown

  function matches(row) {
    const { step, attempts } = row;
    if (
      filter.status === "kept"
        ? !step.kept
        : filter.status && !attempts.some((one) => one.status === filter.status)
    )
      return false;
    if (filter.agent && step.agent !== filter.agent) return false;
    if (filter.attempt && attempts.length > 1 !== (filter.attempt === "many")) return false;
    return !filter.text || row.words.includes(filter.text);
  }

  function refresh() {
    const filtered = Object.values(filter).some(Boolean);
    let shown = null,
      found = 0;
    if (filtered) {
      shown = new Set();
      for (const row of stepRows) {
        row.found = matches(row);
        if (row.found) {
          found += 1;
          for (let one = row; one && !shown.has(one); one = one.parent) shown.add(one);
        }
      }
    } else
      stepRows.forEach((row) => {
        row.found = false;
      });
    rows = filtered ? [] : [...executionRows];
    const waiting = stepRows.filter((row) => !row.parent).reverse();
    while (waiting.length) {
      const row = waiting.pop();
      if (shown && !shown.has(row)) continue;
      rows.push(row);
      if (row.open || filtered)
        for (let at = row.inside.length - 1; at >= 0; at -= 1) waiting.push(row.inside[at]);
    }
    const all = counted(stepRows.length, "step");
    $("count").textContent = filtered ? `${found} of ${all}` : all;
    $("space").style.height = `${rows.length * ROW}px`;
    $("rows").setAttribute("aria-rowcount", rows.length);
    if (chosen && !rows.includes(chosen)) chosen = null;
    draw();
  }

  // -- drawing, once a frame

  let due = false,
    printing = false;
  let trackWide = 800; // pixels, as of the last drawing

  function draw() {
    if (due) return;
    due = true;
    requestAnimationFrame(() => {
      due = false;
      drawNow();
    });
  }

  function drawNow() {
    const scroller = $("rows");
    const first = printing ? 0 : Math.max(0, Math.floor(scroller.scrollTop / ROW) - 4);
    const last = printing
      ? Math.min(rows.length, MOST_PRINTED)
      : Math.min(rows.length, Math.ceil((scroller.scrollTop + scroller.clientHeight) / ROW) + 4);
    const list = [];
    trackWide = $("axis").clientWidth || 800;
    for (let at = first; at < last; at += 1) list.push(rowElement(rows[at], at));
    $("list").replaceChildren(...list);
    const at = rows.indexOf(chosen);
    if (at >= first && at < last) scroller.setAttribute("aria-activedescendant", `row-${at}`);
    else scroller.removeAttribute("aria-activedescendant");
    drawAxis();
    drawBands();
    drawWindow();
  }

  function rowElement(row, at) {
    const [char, style] = sign(row.status);
    const name = make(
      "div",
      {
        class: "name",
        role: "gridcell",
        style: { paddingLeft: `${Math.min(row.depth, 12) * 14 + 4}px` },
      },
      make("span", {
        class: "toggle",
        "aria-hidden": "true",
        text: row.inside.length ? (row.open ? "▾" : "▸") : "",
      }),
      make("span", { class: `sign ${style}-text`, "aria-hidden": "true", text: char }),
      make("span", { class: "text", text: row.name, title: row.step ? row.step.id : row.name }),
    );
    const note = noteOf(row);
    if (note) name.append(make("span", { class: "note", text: note }));
    const track = make(
      "div",
      { class: "track", role: "gridcell", "aria-label": describe(row) },
      ...bars(row),
    );
    return make(
      "div",
      {
        class: row.found ? "row found" : "row",
        role: "row",
        id: `row-${at}`,
        "aria-rowindex": at + 1,
        "aria-level": row.depth + 1,
        "aria-expanded": row.inside.length ? String(row.open) : null,
        "aria-selected": String(row === chosen),
        style: { top: `${at * ROW}px` },
      },
      name,
      track,
    );
  }

  function noteOf(row) {
    if (row.execution) return row.execution.killed ? "killed" : "";
    const gate = row.attempts[row.attempts.length - 1].gate;
    if (gate && !gate[0]) return "gate failed";
    if (row.step.kept) return "not run again";
    if (row.attempts.length > 1) return `${row.attempts.length} attempts`;
    return row.inside.length && !row.open ? `${row.inside.length} inside` : "";
  }

  function describe(row) {
    const length = row.execution ? row.end - row.start : row.took;
    return `${row.status}, from ${took(row.start)} for ${took(length)}, ${noteOf(row)}`;
  }

  function bars(row) {
    const made = [];
    let left = -1,
      lastEnd = -1;
    for (const one of row.attempts) {
      const start = inView(one.start),
        end = inView(one.end);
      lastEnd = end;
      if (one.wait) {
        const until = inView(one.end + one.wait);
        if (until > 0 && end < 1)
          made.push(
            make("div", {
              class: "wait",
              style: {
                left: percent(Math.max(end, 0)),
                width: percent(Math.min(until, 1) - Math.max(end, 0)),
              },
              title: `waited ${took(one.wait)} before the retry`,
            }),
          );
      }
      if (end < 0 || start > 1 || (end <= left && end - start < 0.001)) continue;
      const from = Math.max(start, -0.01),
        to = Math.min(end, 1.01);
      left = to + 0.0005;
      made.push(
        make("div", {
          class: `bar ${known(one.status)}${row.execution ? " execution" : ""}${row.step && row.step.kept ? " kept" : ""}`,
          // One that takes no time, at the very end, is drawn before it.
          style: { left: `min(${percent(from)}, 100% - 3px)`, width: percent(to - from) },
          title: `${row.name}${one.number ? `, attempt ${one.number}` : ""}: ${one.status}, ${took(one.end - one.start)}`,
        }),
      );
      if (critical) made.push(...parts(one.critical, row.execution));
    }
    const text = took(row.execution ? row.end - row.start : row.took);
    const room = (text.length * 7 + 8) / trackWide; // of the label, beside the bar
    if (lastEnd >= 0 && lastEnd < 1 - room)
      made.push(make("div", { class: "took", style: { left: percent(lastEnd) }, text }));
    else if (lastEnd >= 0 && inView(row.start) > room && inView(row.start) < 1)
      made.push(
        make("div", { class: "took before", style: { left: percent(inView(row.start)) }, text }),
      );
    return made;
  }

  function parts(found, isExecution) {
    const made = [];
    let from = null,
      to = null;
    const push = () => {
      if (from !== null)
        made.push(
          make("div", {
            class: isExecution ? "part execution" : "part",
            style: { left: percent(from), width: percent(to - from) },
          }),
        );
    };
    for (const [a, b] of found || []) {
      const start = Math.max(inView(a), -0.01),
        end = Math.min(inView(b), 1.01);
      if (end < 0 || start > 1) continue;
      if (from !== null && start - to < 0.001) to = Math.max(to, end);
      else {
        push();
        from = start;
        to = end;
      }
    }
    push();
    return made;
  }

  const STEPS = [
    0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1e3,
    2e3, 5e3, 1e4, 2e4, 3e4, 6e4, 12e4, 3e5, 6e5, 12e5, 18e5, 36e5, 72e5, 144e5, 432e5, 864e5,
    1728e5, 432e6, 864e6, 864e7, 864e8,
  ];
  function ticks(wide) {
    const found = [];
    let free = 0;
    for (let at = 0; at + 1 < knots.length; at += 2) {
      // the parts between shortened downtimes
      const from = Math.max(knots[at][0], timeAt(view[0])),
        to = Math.min(knots[at + 1][0], timeAt(view[1]));
      if (to <= from) continue;
      const pixels = (inView(to) - inView(from)) * wide;
      const every =
        STEPS.find((one) => (pixels * one) / (to - from) >= 84) || STEPS[STEPS.length - 1];
      for (let ms = Math.ceil(from / every) * every; ms <= to && found.length < 200; ms += every) {
        const pixel = inView(ms) * wide,
          text = label(ms, every);
        if (pixel >= free - 0.5 && pixel + 7 * text.length < wide) {
          found.push([pixel, text]);
          free = pixel + 60;
        }
      }
    }
    return found;
  }
  function label(ms, every) {
    if (Math.abs(ms) < every / 2) return "0";
    if (ms < 1000) return `${Number(ms.toPrecision(6))} ms`;
    if (ms < 60000) return `${Number((ms / 1000).toFixed(6))} s`;
    return every < 1000
      ? `${took(ms)} ${Math.round(ms % 1000)} ms`
      : took(ms).replace(/ 00 (s|min)$/, "");
  }

  function drawAxis() {
    const axis = $("axis"),
      wide = axis.clientWidth;
    const made = ticks(wide).map(([pixel, text]) =>
      make("span", { style: { left: `${pixel}px` }, text }),
    );
    for (const [start, end] of toScale ? [] : run.downtimes) {
      const from = Math.max(0, inView(start)),
        to = Math.min(1, inView(end));
      if ((to - from) * wide > 50 && isCut(start))
        made.push(
          make("span", {
            class: "away",
            style: { left: percent(from), width: percent(to - from) },
            text: `${took(end - start)}`,
          }),
        );
    }
    axis.replaceChildren(...made);
  }

  function drawBands() {
    const made = ticks($("axis").clientWidth).map(([pixel]) =>
      make("div", { class: "tick", style: { left: `${pixel}px` } }),
    );
    for (const [start, end, after, why] of run.downtimes) {
      const from = Math.max(inView(start), -0.01),
        to = Math.min(inView(end), 1.01);
      if (to > 0 && from < 1)
        made.push(
          make("div", {
            class: "down",
            style: { left: percent(from), width: percent(to - from) },
            "data-after": after,
            "data-why": why,
          }),
        );
    }
    for (const one of run.executions) {
      if (one.killed && inView(one.end) >= 0 && inView(one.end) <= 1)
        made.push(make("div", { class: "crash", style: { left: percent(inView(one.end)) } }));
    }
    $("bands").replaceChildren(...made);
  }

  function drawWindow() {
    const box = $("window"),
      whole = view[0] <= 0 && view[1] >= 1;
    box.hidden = whole;
    if (!whole)
      Object.assign(box.style, { left: percent(view[0]), width: percent(view[1] - view[0]) });
  }

  function drawMinimap() {
    const canvas = $("minimap"),
      { clientWidth: wide, clientHeight: high } = canvas;
    if (!wide) return;
    const ratio = window.devicePixelRatio || 1;
    canvas.width = wide * ratio;
    canvas.height = high * ratio;
    const context = canvas.getContext("2d"),
      style = getComputedStyle(document.documentElement);
    const colour = (name) => style.getPropertyValue(name).trim();
    const colours = new Map([
      ["completed", colour("--good")],
      ["running", colour("--run")],
      ["failed", colour("--bad")],
      ["timeout", colour("--bad")],
      ["skipped", colour("--skip")],
    ]);
    const other = colour("--warn");
    context.scale(ratio, ratio);
    context.globalAlpha = 0.5;
    context.fillStyle = colour("--band");
    for (const [start, end] of run.downtimes)
      context.fillRect(
        place(start) * wide,
        0,
        Math.max(1, (place(end) - place(start)) * wide),
        high,
      );
    context.globalAlpha = 0.85;
    const step = (high - 6) / Math.max(stepRows.length, 8);
    stepRows.forEach((row, at) => {
      for (const one of row.attempts) {
        context.fillStyle = colours.get(one.status) || other;
        context.fillRect(
          place(one.start) * wide,
          3 + at * step,
          Math.max(1, (place(one.end) - place(one.start)) * wide),
          Math.max(1, step - 0.8),
        );
      }
    });
    context.globalAlpha = 1;
    context.fillStyle = colour("--bad");
    for (const one of run.executions)
      if (one.killed) context.fillRect(place(one.end) * wide - 1, 0, 2, high);
  }

  // -- zoom and pan

  function setView(from, to) {
    const width = Math.min(1, Math.max(to - from, 1e-7));
    const start = Math.min(Math.max(from, 0), 1 - width);
    view = [start, start + width];
    draw();
  }
  function zoom(factor, at = 0.5) {
    const width = view[1] - view[0],
      middle = view[0] + width * at,
      next = width * factor;
    setView(middle - next * at, middle + next * (1 - at));
  }
  function pan(part) {
    const width = view[1] - view[0];
    setView(view[0] + part * width, view[1] + part * width);
  }
  function zoomTo(row) {
    const from = place(row.start),
      to = place(row.end),
      margin = Math.max((to - from) * 0.1, 1e-6);
    setView(from - margin, to + margin);
  }

  function partOf(element, event) {
    const box = element.getBoundingClientRect();
    return (event.clientX - box.left) / Math.max(1, box.width);
  }

  $("rows").addEventListener(
    "wheel",
    (event) => {
      const part =
        (event.clientX - $("axis").getBoundingClientRect().left) /
        Math.max(1, $("axis").clientWidth);
      if (event.ctrlKey || event.metaKey) {
        event.preventDefault();
        zoom(event.deltaY > 0 ? 1.2 : 1 / 1.2, Math.min(1, Math.max(0, part)));
      } else if (event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY)) {
        event.preventDefault();
        pan((event.deltaX || event.deltaY) / 1000);
      }
    },
    { passive: false },
  );

  let grip = null;
  $("list").addEventListener("pointerdown", (event) => {
    const track = event.target.closest(".track");
    if (track && event.button === 0 && event.pointerType !== "touch")
      grip = { x: event.clientX, from: view[0], wide: track.clientWidth, moved: false };
  });
  window.addEventListener("pointermove", (event) => {
    if (!grip || grip.map) return;
    const moved = event.clientX - grip.x;
    if (Math.abs(moved) > 4) grip.moved = true;
    if (grip.moved) {
      const width = view[1] - view[0];
      setView(
        grip.from - (moved / grip.wide) * width,
        grip.from - (moved / grip.wide) * width + width,
      );
    }
  });
  window.addEventListener("pointerup", () => {
    if (grip && !grip.map) {
      const { moved } = grip;
      grip = null;
      if (moved) justMoved = true;
    }
  });
  let justMoved = false;

  for (const id of ["map", "axis"]) {
    $(id).addEventListener("pointerdown", (event) => {
      const part = partOf($(id), event);
      grip = {
        map: id,
        from: id === "map" ? part : view[0] + part * (view[1] - view[0]),
        width: view[1] - view[0],
        start: view[0],
      };
      $(id).setPointerCapture(event.pointerId);
    });
    $(id).addEventListener("pointermove", (event) => {
      if (!grip || grip.map !== id) return;
      const part = partOf($(id), event),
        to = id === "map" ? part : grip.start + part * grip.width;
      grip.to = to;
      const [a, b] = [Math.min(grip.from, to), Math.max(grip.from, to)];
      $("window").hidden = false;
      Object.assign($("window").style, {
        left: percent(Math.max(0, a)),
        width: percent(Math.min(1, b) - Math.max(0, a)),
      });
    });
    $(id).addEventListener("pointerup", () => {
      if (!grip || grip.map !== id) return;
      const { from, to, width } = grip;
      grip = null;
      if (to !== undefined && Math.abs(to - from) > width * 0.005)
        setView(Math.max(0, Math.min(from, to)), Math.min(1, Math.max(from, to)));
      else if (id === "map" && width < 1) setView(from - width / 2, from + width / 2);
      else draw();
    });
    $(id).addEventListener("dblclick", () => setView(0, 1));
  }

  // -- choosing a row, and its details

  $("rows").addEventListener("scroll", draw, { passive: true });
  $("list").addEventListener("click", (event) => {
    if (justMoved) {
      justMoved = false;
      return;
    }
    const element = event.target.closest(".row");
    if (!element) return;
    const row = rows[Number(element.getAttribute("aria-rowindex")) - 1];
    if (event.target.closest(".toggle") && row.inside.length) {
      row.open = !row.open;
      refresh();
    } else choose(row, true);
  });
  $("list").addEventListener("dblclick", (event) => {
    const element = event.target.closest(".row");
    if (element && event.target.closest(".track"))
      zoomTo(rows[Number(element.getAttribute("aria-rowindex")) - 1]);
  });

  function choose(row, open) {
    chosen = row;
    reveal(row);
    draw();
    if (open || !$("details").hidden) details(row);
  }
  function reveal(row) {
    const scroller = $("rows"),
      at = rows.indexOf(row) * ROW;
    if (at < scroller.scrollTop) scroller.scrollTop = at;
    else if (at + ROW > scroller.scrollTop + scroller.clientHeight)
      scroller.scrollTop = at + ROW - scroller.clientHeight;
  }

  function pairs(list) {
    const made = make("dl", { class: "pairs" });
    for (const [name, value] of list) {
      if (value === null || value === undefined || value === "") continue;
      made.append(
        make("dt", { text: name }),
        value instanceof Node ? make("dd", {}, value) : make("dd", { text: value }),
      );
    }
    return made;
  }
  function table(heads, lines) {
    return make(
      "table",
      {},
      make("thead", {}, make("tr", {}, ...heads.map((text) => make("th", { scope: "col", text })))),
      make(
        "tbody",
        {},
        ...lines.map((line) =>
          make(
            "tr",
            {},
            ...line.map((cell) =>
              cell instanceof Node ? make("td", {}, cell) : make("td", { text: cell }),
            ),
          ),
        ),
      ),
    );
  }
  // JSON on several lines, as it is written: parsing it would change large numbers.
  function indented(json) {
    let text = "",
      depth = 0,
      inside = false;
    for (let at = 0; at < json.length; at += 1) {
      const char = json[at];
      if (inside) {
        text += char;
        if (char === "\\") {
          at += 1;
          text += json[at] || "";
        } else if (char === '"') inside = false;
      } else if (char === '"') {
        inside = true;
        text += char;
      } else if ("[{".includes(char) && !"]}".includes(json[at + 1])) {
        depth += 1;
        text += `${char}\n${"  ".repeat(Math.min(depth, 40))}`;
      } else if ("]}".includes(char) && !"[{".includes(json[at - 1])) {
        depth = Math.max(0, depth - 1);
        text += `\n${"  ".repeat(Math.min(depth, 40))}${char}`;
      } else if (char === ",") text += `,\n${"  ".repeat(Math.min(depth, 40))}`;
      else text += char === ":" ? ": " : char;
    }
    return text;
  }
  const scrolling = (text) => make("pre", { text, tabindex: "0" });
  function statusText(status) {
    const [char, style] = sign(status);
    return make("span", {
      class: `${style}-text${known(status) && " together"}`,
      text: `${char} ${status}`,
    });
  }
  const together = (text) => make("span", { class: "together", text });
  const LISTED = 200;
  function listed(heads, all, line) {
    const made = [table(heads, all.slice(0, LISTED).map(line))];
    if (all.length > LISTED)
      made.push(
        make("p", { class: "dim-text", text: `and ${all.length - LISTED} more: see the events` }),
      );
    return made;
  }

  function details(row) {
    const about = $("about");
    about.replaceChildren(...(row.execution ? executionDetails(row.execution) : stepDetails(row)));
    $("details").hidden = false;
    $("details").scrollTop = 0;
    draw();
  }

  function executionDetails(one) {
    return [
      make("h2", { text: `Execution ${one.number}` }),
      pairs([
        ["status", statusText(one.status)],
        ["began", `${clock(one.start)} (+${took(one.start)})`],
        [one.killed ? "last sign of life" : "ended", `${clock(one.end)} (+${took(one.end)})`],
        ["took", took(one.end - one.start)],
        ["own work", took(sum(one.critical))],
        ["began with", `seq ${one.seq}`],
      ]),
      make("h3", { text: "Process" }),
      pairs(one.process),
    ];
  }

  function stepDetails(row) {
    const { step, attempts } = row,
      made = [make("h2", { text: step.id })];
    made.push(
      pairs([
        ["status", statusText(row.status)],
        ["agent", step.agent],
        ["action", step.action],
        ["began", `${clock(row.start)} (+${took(row.start)})`],
        ["took", took(row.took)],
        ["used", step.used],
        [
          "waited for",
          row.critical ? `${took(row.critical)} (critical path)` : "no: something else took longer",
        ],
        ["not run again", step.kept ? "its result came from the log" : null],
        ["failure", step.handled ? "handled: the workflow continued" : null],
        ["key", step.key],
        ["inputs digest", step.digest],
      ]),
    );
    made.push(
      make("h3", { text: "Attempts" }),
      ...listed(["#", "exec.", "start", "took", "status"], attempts, (one) => [
        one.number,
        one.execution,
        together(`+${took(one.start)}`),
        took(one.end - one.start) + (one.wait ? `, then ${took(one.wait)} wait` : ""),
        statusText(one.status),
      ]),
    );
    for (const one of attempts) {
      if (one.question)
        made.push(make("h3", { text: `Question, attempt ${one.number}` }), scrolling(one.question));
      if (one.reason)
        made.push(make("h3", { text: `Reason, attempt ${one.number}` }), scrolling(one.reason));
      if (one.gate)
        made.push(make("h3", { text: `Gate, attempt ${one.number}` }), scrolling(one.gate[1]));
      if (one.error && made.length < 60)
        made.push(
          make("h3", { text: `Error, attempt ${one.number}` }),
          scrolling([one.error.text, one.error.stack].filter(Boolean).join("\n\n")),
        );
    }
    if (step.inputs) made.push(make("h3", { text: "Inputs" }), scrolling(indented(step.inputs)));
    if (step.result) made.push(make("h3", { text: "Result" }), scrolling(indented(step.result)));
    if (step.omitted)
      made.push(make("h3", { text: "Result" }), scrolling(`not stored: ${step.omitted}`));
    const artifacts = attempts.flatMap((one) => one.artifacts || []);
    if (artifacts.length)
      made.push(
        make("h3", { text: "Artifacts" }),
        ...listed(["path", "bytes", "type", "sha256"], artifacts, (one) => [
          one[0],
          one[1],
          one[2],
          one[3].slice(0, 12),
        ]),
      );
    const spans = spansOf[row.at];
    if (spans.length)
      made.push(
        make("h3", { text: "Spans of libraries" }),
        ...listed(
          ["name", "start", "took", "attributes"],
          spans,
          ([, name, start, end, , attributes]) => [
            name,
            `+${took(start)}`,
            spanTook(start, end),
            attributes,
          ],
        ),
      );
    const events = eventsOf[row.at];
    if (events.length)
      made.push(
        make("h3", { text: "Events" }),
        ...listed(["seq", "time", "event", "about"], events, (one) => [
          one[0],
          clock(one[1]),
          one[2],
          one[8],
        ]),
      );
    const span = attempts[attempts.length - 1].span;
    if (run.jaeger && /^[0-9a-f]{16}$/.test(span || ""))
      made.push(
        make(
          "p",
          {},
          make("a", {
            href: `${run.jaeger}?uiFind=${span}`,
            target: "_blank",
            rel: "noopener noreferrer",
            text: "This step in Jaeger",
          }),
        ),
      );
    return made;
  }

  function closeDetails() {
    $("details").hidden = true;
    draw();
    $("rows").focus();
  }
  $("close").addEventListener("click", closeDetails);

  // -- the keyboard

  const KEYS = [
    ["↑ ↓", "the step before, the next one"],
    ["← →", "collapse, expand"],
    ["Enter", "details"],
    ["Esc", "close the details, clear the filters"],
    ["/", "search"],
    ["+ -", "zoom"],
    ["a d", "move left, right"],
    ["0", "the whole run"],
    ["z", "zoom to the step"],
    ["c", "critical path"],
    ["s", "downtime to scale"],
    ["?", "this help"],
  ];
  const MOUSE = [
    ["Drag on a bar's row", "move"],
    ["Drag on the overview or the axis", "zoom to that"],
    ["Ctrl + wheel", "zoom"],
    ["Double click a bar", "zoom to it"],
  ];
  $("help-keys").append(
    ...KEYS.flatMap(([key, text]) => [
      make("dt", {}, make("kbd", { text: key })),
      make("dd", { text }),
    ]),
    ...MOUSE.flatMap(([key, text]) => [make("dt", { text: key }), make("dd", { text })]),
  );
  const help = () => $("help").showModal();
  $("keys").addEventListener("click", help);
  $("help-close").addEventListener("click", () => $("help").close());

  function move(by) {
    if (!rows.length) return;
    const at = (chosen ? rows.indexOf(chosen) : -1) + by; // the first one comes after none
    choose(rows[Math.min(rows.length - 1, Math.max(0, at))], false);
  }
  const actions = {
    ArrowDown: () => move(1),
    ArrowUp: () => move(-1),
    PageDown: () => move(15),
    PageUp: () => move(-15),
    Home: () => move(-rows.length),
    End: () => move(rows.length),
    ArrowRight: () => {
      if (chosen && chosen.inside.length) {
        if (chosen.open) move(1);
        else {
          chosen.open = true;
          refresh();
        }
      }
    },
    ArrowLeft: () => {
      if (!chosen) return;
      if (chosen.inside.length && chosen.open) {
        chosen.open = false;
        refresh();
      } else if (chosen.parent) choose(chosen.parent, false);
    },
    Enter: () => {
      if (chosen) details(chosen);
    },
    " ": () => {
      if (chosen) details(chosen);
    },
  };
  const shortcuts = {
    "/": () => $("search").focus(),
    "+": () => zoom(0.6),
    "=": () => zoom(0.6),
    "-": () => zoom(1 / 0.6),
    0: () => setView(0, 1),
    a: () => pan(-0.2),
    d: () => pan(0.2),
    z: () => {
      if (chosen) zoomTo(chosen);
    },
    c: () => $("critical").click(),
    s: () => {
      if (!$("scale").hidden) $("scale").click();
    },
    "?": help,
    Escape: () => {
      if (!$("details").hidden) closeDetails();
      else clearFilters();
    },
  };
  document.addEventListener("keydown", (event) => {
    if (
      event.ctrlKey ||
      event.metaKey ||
      event.altKey ||
      $("help").open ||
      $("view-timeline").hidden
    )
      return;
    const typing = event.target.closest("input, select");
    if (typing) {
      if (event.key === "Escape") {
        clearFilters();
        $("rows").focus();
      }
      return;
    }
    const inTree = !event.target.closest("button, a, aside, [role=tab]");
    const action = shortcuts[event.key] || (inTree && actions[event.key]);
    if (action) {
      event.preventDefault();
      action();
    }
  });

  // -- tools

  const distinct = (values) => [...new Set(values.filter(Boolean))].sort();
  function fill(id, first, values) {
    $(id).append(
      make("option", { value: "", text: first }),
      ...values.map(([value, text]) => make("option", { value, text })),
    );
  }
  const statuses = distinct(stepRows.flatMap((row) => row.attempts.map((one) => one.status))).map(
    (one) => [one, one],
  );
  if (run.steps.some((step) => step.kept)) statuses.push(["kept", "not run again"]);
  fill("by-status", "any status", statuses);
  fill(
    "by-agent",
    "any agent",
    distinct(run.steps.map((step) => step.agent)).map((one) => [one, one]),
  );
  fill("by-attempt", "any attempts", [
    ["one", "one attempt"],
    ["many", "several attempts"],
  ]);
  $("collapse").parentElement.hidden = !stepRows.some((row) => row.inside.length);
  $("by-agent").hidden = $("by-agent").options.length < 2;
  for (const [id, name] of [
    ["by-status", "status"],
    ["by-agent", "agent"],
    ["by-attempt", "attempt"],
  ]) {
    $(id).addEventListener("change", () => {
      filter[name] = $(id).value;
      refresh();
    });
  }
  $("search").addEventListener("input", () => {
    filter.text = $("search").value.trim().toLowerCase();
    refresh();
  });
  $("search").addEventListener("keydown", (event) => {
    if (event.key === "Enter") {
      const first = rows.find((row) => row.found);
      if (first) {
        choose(first, true);
        $("rows").focus();
      }
    }
  });
  function clearFilters() {
    for (const id of ["search", "by-status", "by-agent", "by-attempt"]) $(id).value = "";
    Object.keys(filter).forEach((name) => {
      filter[name] = "";
    });
    for (let one = chosen && chosen.parent; one; one = one.parent) one.open = true;
    refresh();
    if (chosen) reveal(chosen);
  }
  $("zoom-in").addEventListener("click", () => zoom(0.6));
  $("zoom-out").addEventListener("click", () => zoom(1 / 0.6));
  $("zoom-all").addEventListener("click", () => setView(0, 1));
  const openAll = (open) => {
    stepRows.forEach((row) => {
      row.open = open;
    });
    refresh();
  };
  $("collapse").addEventListener("click", () => openAll(false));
  $("expand").addEventListener("click", () => openAll(true));
  $("critical").addEventListener("click", () => {
    critical = !critical;
    $("critical").setAttribute("aria-pressed", critical);
    draw();
  });
  $("scale").addEventListener("click", () => {
    toScale = !toScale;
    $("scale").setAttribute("aria-pressed", toScale);
    rescale();
    setView(0, 1);
    drawMinimap();
    legend();
  });

  const applyTheme = tapps.theme(() => drawMinimap());

  // -- tabs

  const views = ["timeline", "events", "log"];
  function showTab(name) {
    for (const one of views) {
      const on = one === name;
      $(`view-${one}`).hidden = !on;
      $(`tab-${one}`).setAttribute("aria-selected", on);
      $(`tab-${one}`).tabIndex = on ? 0 : -1;
    }
    if (name === "events") drawEvents();
    else {
      drawMinimap();
      draw();
    }
  }
  views.forEach((name, at) => {
    $(`tab-${name}`).addEventListener("click", () => showTab(name));
    $(`tab-${name}`).addEventListener("keydown", (event) => {
      const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (by) {
        const next = views[(at + by + views.length) % views.length];
        showTab(next);
        $(`tab-${next}`).focus();
        event.stopPropagation();
      }
    });
  });

  // -- events

  const HEADS = ["seq", "time (UTC)", "event", "step", "execution", "attempt", "took", ""];
  const stepName = (at) => (at === null ? "" : run.steps[at].id);
  let shownEvents = run.events;
  $("event-head").append(
    make(
      "div",
      { class: "event", role: "row" },
      ...HEADS.map((text) => make("span", { role: "columnheader", text: text || "about" })),
    ),
  );
  function drawEvents() {
    const scroller = $("events");
    const first = printing ? 0 : Math.max(0, Math.floor(scroller.scrollTop / ROW) - 6);
    const last = printing
      ? Math.min(shownEvents.length, MOST_PRINTED)
      : Math.min(
          shownEvents.length,
          Math.ceil((scroller.scrollTop + scroller.clientHeight) / ROW) + 6,
        );
    $("event-space").style.height = `${shownEvents.length * ROW}px`;
    scroller.setAttribute("aria-rowcount", shownEvents.length + 1);
    $("event-count").textContent = `${shownEvents.length} of ${run.events.length} events`;
    $("event-list").replaceChildren(
      ...shownEvents.slice(first, last).map((one, index) => {
        const [seq, ms, kind, step, execution, attempt, status, length, about, late] = one;
        const cells = [
          seq,
          clock(ms),
          kind,
          stepName(step),
          execution,
          attempt === null ? "" : attempt,
          took(length),
          [status, about, late ? "written later" : ""].filter(Boolean).join(", "),
        ];
        return make(
          "div",
          {
            class: "event",
            role: "row",
            "aria-rowindex": first + index + 2,
            "data-step": step,
            style: { top: `${(first + index) * ROW}px` },
          },
          ...cells.map((text, at) =>
            make("span", { role: "cell", text, title: at === 3 || at === 7 ? text : null }),
          ),
        );
      }),
    );
  }
  $("events").addEventListener("scroll", () => requestAnimationFrame(drawEvents), {
    passive: true,
  });
  $("find-event").addEventListener("input", () => {
    const text = $("find-event").value.trim().toLowerCase();
    shownEvents = text
      ? run.events.filter((one) =>
          [one[0], one[2], stepName(one[3]), one[6], one[8]]
            .join("\n")
            .toLowerCase()
            .includes(text),
        )
      : run.events;
    drawEvents();
  });
  $("event-list").addEventListener("click", (event) => {
    const element = event.target.closest(".event"),
      at = element && element.getAttribute("data-step");
    if (!at) return;
    showTab("timeline");
    chosen = stepRows[at];
    clearFilters();
    choose(chosen, true);
  });

  // -- run and log

  function logView() {
    const { log } = run,
      made = [
        make("h2", { text: "Run" }),
        pairs([
          ["id", run.id],
          ["workflow", run.name],
          ["trace", run.trace],
          ["started", `${run.start.slice(0, 23).replace("T", " ")} UTC`],
        ]),
      ];
    const state = log.damage
      ? statusText("damaged")
      : make("span", {
          class: "good-text",
          text: "✓ every line up to the head is verified by the hash chain",
        });
    if (log.damage) state.className = "bad-text";
    made.push(
      make("h3", { text: "Log, when this page was made" }),
      pairs([
        ["check", state],
        ["head", `seq ${log.seq}`],
        ["sha", log.sha],
        ["file", log.path],
        [
          "repairs",
          log.repairs && log.repairs.length
            ? log.repairs.map(([at, length]) => `${length} bytes at byte ${at}`).join(", ")
            : "none",
        ],
        ["unfinished end", log.unfinished],
        ["dropped events", log.dropped || null],
      ]),
    );
    if (log.damage) made.push(make("h3", { text: "Damage" }), scrolling(log.damage));
    if (run.error)
      made.push(
        make("h3", { text: "Error" }),
        scrolling([run.error.text, run.error.stack].filter(Boolean).join("\n\n")),
      );
    if (run.inputs) made.push(make("h3", { text: "Inputs" }), scrolling(indented(run.inputs)));
    if (run.result) made.push(make("h3", { text: "Result" }), scrolling(indented(run.result)));
    const loose = run.spans.filter((span) => span[0] === null);
    if (loose.length)
      made.push(
        make("h3", { text: "Spans of libraries, outside any step" }),
        ...listed(["name", "start", "took"], loose, ([, name, start, end]) => [
          name,
          `+${took(start)}`,
          spanTook(start, end),
        ]),
      );
    $("log").append(...made);
  }

  function legend() {
    const made = [entry("bar", "completed"), entry("part", "the run waited for it")];
    if (run.steps.some((step) => step.kept)) made.push(entry("bar kept", "not run again"));
    const any = (status) =>
      stepRows.some((row) => row.attempts.some((one) => one.status === status));
    if (any("interrupted")) made.push(entry("bar interrupted", "interrupted"));
    if (any("failed") || any("timeout")) made.push(entry("bar failed", "failed"));
    if (any("running")) made.push(entry("bar running", "running"));
    if (any("skipped")) made.push(entry("bar skipped", "skipped"));
    if (stepRows.some((row) => row.attempts.some((one) => one.wait)))
      made.push(entry("wait", "wait before a retry"));
    if (run.executions.some((one) => one.killed)) made.push(entry("crash", "killed"));
    if (run.downtimes.length)
      made.push(entry("down", `down${toScale || $("scale").hidden ? "" : " (not to scale)"}`));
    $("legend").replaceChildren(...made);
  }

  // -- begin

  const [char, style] = sign(run.status);
  $("status").className = `badge ${style}-text`;
  $("status").textContent = `${char} ${run.status}`;
  $("name").textContent = run.name || "run";
  $("id").textContent = run.id;
  $("facts").append(
    ...run.facts
      .filter(([name]) => name !== "run" && name !== "workflow")
      .map(([name, text, how]) =>
        make(
          "div",
          { class: ["good", "bad", "warn"].includes(how) ? how : "" },
          make("dt", { text: name }),
          make("dd", { text }),
        ),
      ),
  );
  if (run.jaeger) {
    $("jaeger").href = run.jaeger;
    $("jaeger").hidden = false;
  }
  tapps.drawn();
  rescale();
  legend();
  logView();
  applyTheme();
  refresh();
  window.addEventListener("resize", () => {
    drawMinimap();
    draw();
    if (!$("view-events").hidden) drawEvents();
  });
  window.addEventListener("beforeprint", () => {
    printing = true;
    if ($("view-events").hidden) drawNow();
    else drawEvents();
  });
  window.addEventListener("afterprint", () => {
    printing = false;
    if ($("view-events").hidden) drawNow();
    else drawEvents();
  });
})();
