"use strict";
// What the pages have in common. All text is untrusted: it is only ever set as text.
const tapps = (() => {
  const SIGNS = {
    completed: ["✓", "good"],
    skipped: ["-", "dim"],
    failed: ["✗", "bad"],
    timeout: ["✗", "bad"],
    damaged: ["✗", "bad"],
    cancelled: ["✗", "warn"],
    interrupted: ["!", "warn"],
    paused: ["?", "warn"],
    answered: ["?", "good"],
    running: ["…", "strong"],
  };
  const $ = (id) => document.getElementById(id);
  // The log may hold any text as a status: also the name of a property that every object has.
  const known = (status) => (Object.hasOwn(SIGNS, status) ? status : "");
  const sign = (status) => SIGNS[known(status)] || ["·", "dim"];
  const data = () => JSON.parse($("data").textContent);

  function make(tag, options = {}, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(options)) {
      if (value === null || value === undefined) continue;
      if (name === "class") element.className = value;
      else if (name === "text") element.textContent = value;
      else if (name === "style") Object.assign(element.style, value);
      else element.setAttribute(name, value);
    }
    element.append(...children);
    return element;
  }

  const counted = (number, noun) => `${number} ${noun}${number === 1 ? "" : "s"}`;
  // An entry of a legend.
  const entry = (style, text) =>
    make("span", {}, make("i", {}, make("span", { class: style })), text);
  const percent = (part) => `${(part * 100).toFixed(4)}%`;

  function took(ms) {
    if (ms === null || ms === undefined) return "";
    const s = ms / 1000;
    if (s < 0.01) return `${ms.toFixed(1)} ms`;
    if (s < 1) return `${ms.toFixed(0)} ms`;
    if (s < 60) return `${s.toFixed(2)} s`;
    const minutes = Math.floor(s / 60),
      rest = String(Math.floor(s % 60)).padStart(2, "0");
    return minutes < 60
      ? `${minutes} min ${rest} s`
      : `${Math.floor(minutes / 60)} h ${String(minutes % 60).padStart(2, "0")} min`;
  }

  // Light or dark as the system asks, until the button says otherwise.
  const asked = window.matchMedia("(prefers-color-scheme: dark)"),
    root = document.documentElement;
  root.classList.toggle("dark", asked.matches); // before anything is painted
  function theme(changed = () => {}) {
    function dark(on) {
      root.classList.toggle("dark", on);
      $("theme").textContent = on ? "Light" : "Dark";
      changed();
    }
    asked.addEventListener("change", () => dark(asked.matches));
    $("theme").addEventListener("click", () => dark(!root.classList.contains("dark")));
    return () => dark(asked.matches);
  }

  // The data of a large run take seconds to read: meanwhile, a line tells what is loaded.
  $("loading").hidden = false;
  function drawn() {
    $("loading").hidden = true;
    $("app").hidden = false;
  }

  return { $, counted, data, drawn, entry, known, make, percent, sign, theme, took };
})();
