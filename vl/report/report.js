"use strict";
// Switches, filters and tooltips of the report. Without it the page shows its first view.
(() => {
  const root = document.documentElement;
  const all = (selector, from = document) => [...from.querySelectorAll(selector)];

  // Theme: the system's, until the button is pressed.
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  root.classList.toggle("dark", dark.matches);
  dark.addEventListener("change", (event) => root.classList.toggle("dark", event.matches));
  document.getElementById("theme").addEventListener("click", () => root.classList.toggle("dark"));

  // One of several views: buttons data-set-KIND="x" show the elements data-KIND="x".
  const makeSwitch = (kind, within) => {
    const buttons = all(`[data-set-${kind}]`);
    for (const button of buttons) {
      const value = button.getAttribute(`data-set-${kind}`);
      button.addEventListener("click", () => {
        for (const other of buttons) other.setAttribute("aria-pressed", String(other === button));
        for (const view of all(`${within} [data-${kind}]`)) {
          view.hidden = view.getAttribute(`data-${kind}`) !== value;
        }
      });
    }
  };
  makeSwitch("measure", "#result");
  makeSwitch("curve", "#sources");

  // A tick box that puts a class on the body while it is not ticked.
  const makeToggle = (id, className) => {
    const box = document.getElementById(id);
    if (!box) return;
    const update = () => document.body.classList.toggle(className, !box.checked);
    box.addEventListener("change", update);
    update();
  };
  makeToggle("show-sources", "no-sources");
  makeToggle("show-raw", "no-raw");

  // Gallery.
  const form = document.getElementById("filters");
  if (form) {
    const cards = all("#cards > .card");
    const texts = cards.map((card) => card.textContent.toLowerCase());
    const before = document.body.dataset.before;
    const verdictOf = (card, phase) => card.getAttribute(`data-verdict-${phase}`);
    const matches = (card, wanted) => {
      const now = verdictOf(card, wanted.phase);
      const then = verdictOf(card, before);
      if (wanted.verdict === "fixed") return now === "correct" && then !== "correct";
      if (wanted.verdict === "broken") return now !== "correct" && then === "correct";
      return !wanted.verdict || now === wanted.verdict;
    };
    const update = () => {
      const wanted = Object.fromEntries(new FormData(form));
      const words = wanted.text.toLowerCase().split(/\s+/).filter(Boolean);
      let shown = 0;
      cards.forEach((card, index) => {
        card.hidden = !(
          (!wanted.task || card.dataset.task === wanted.task) &&
          (!wanted.source || card.dataset.source === wanted.source) &&
          matches(card, wanted) &&
          words.every((word) => texts[index].includes(word))
        );
        shown += !card.hidden;
        for (const part of all("[data-phase]", card)) {
          part.hidden = part.dataset.phase !== before && part.dataset.phase !== wanted.phase;
        }
      });
      document.getElementById("shown").textContent = `${shown} of ${cards.length} rows shown`;
    };
    form.addEventListener("input", update);
    form.addEventListener("submit", (event) => event.preventDefault());
    update();
  }

  // Tooltip of the curves: the bold lines' values at the step under the pointer.
  const tip = document.getElementById("tip");
  const plain = (value) => String(Number(value.toPrecision(3)));
  for (const chart of all("svg.lines")) {
    const [left, right, top, bottom] = chart.dataset.area.split(" ").map(Number);
    const [xLow, xHigh] = chart.dataset.x.split(" ").map(Number);
    const [yLow, yHigh] = chart.dataset.y.split(" ").map(Number);
    const cursor = chart.querySelector(".cursor");
    const leave = () => { tip.hidden = true; cursor.setAttribute("visibility", "hidden"); };
    chart.addEventListener("pointerleave", leave);
    chart.addEventListener("pointermove", (event) => {
      const frame = chart.getBoundingClientRect();
      const x = (event.clientX - frame.left) * (chart.viewBox.baseVal.width / frame.width);
      if (x < left - 4 || x > right + 4) return leave();
      const nearest = (line) => [...line.points].reduce((a, b) => (Math.abs(b.x - x) < Math.abs(a.x - x) ? b : a));
      const rows = all(".smooth", chart).filter((line) => line.points.length).map((line) => ({ name: line.dataset.name, point: nearest(line) }));
      if (!rows.length) return leave();
      const at = rows[0].point.x;
      const step = Math.round(xLow + ((at - left) / (right - left)) * (xHigh - xLow));
      const values = rows.map(({ name, point }) => `${name}  ${plain(yLow + ((bottom - point.y) / (bottom - top)) * (yHigh - yLow))}`);
      tip.textContent = [`step ${step}`, ...values].join("\n");
      tip.hidden = false;
      tip.style.left = `${Math.min(event.clientX + 14, window.innerWidth - tip.offsetWidth - 8)}px`;
      tip.style.top = `${event.clientY + 14}px`;
      cursor.setAttribute("x1", at);
      cursor.setAttribute("x2", at);
      cursor.setAttribute("visibility", "visible");
    });
  }
})();
