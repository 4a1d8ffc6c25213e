"use strict";
// Points can be hovered, tapped and reached by keyboard; series can be shown and hidden.
const views = JSON.parse(document.getElementById("points").textContent);
const REACH = 28; // pixels around a point

document.querySelectorAll(".plot").forEach((plot, number) => {
  const svg = plot.querySelector(":scope > svg");
  const tip = plot.querySelector(".tip");
  const spots = [...plot.querySelectorAll(".spot")];
  const told = views[number];
  let shown = null; // the point in hand

  svg.setAttribute("role", "group");
  svg.setAttribute("aria-label", `${svg.querySelector("title").textContent}. Arrow keys go from point to point.`);
  svg.querySelectorAll(":scope > title, :scope > desc, .spot > title").forEach((part) => part.remove());
  spots.forEach((spot, i) => {
    const { name, facts } = told[i];
    spot.setAttribute("role", "img");
    spot.setAttribute("aria-label", [name, ...facts.map((pair) => pair.join(": "))].join("; "));
    spot.addEventListener("focus", () => show(spot));
  });

  const visible = () => spots.filter((spot) => !spot.classList.contains("off"));

  // One point alone is in the order of the tab key: the one in hand, or the first.
  function reachable() {
    const first = shown ?? visible()[0];
    spots.forEach((spot) => spot.setAttribute("tabindex", spot === first ? "0" : "-1"));
  }

  function show(spot) {
    if (spot === shown) return;
    shown?.classList.remove("at");
    shown = spot;
    reachable();
    tip.hidden = spot === null;
    if (spot === null) return;
    spot.classList.add("at");
    const { name, facts } = told[spots.indexOf(spot)];
    const list = document.createElement("dl");
    for (const [term, value] of facts) {
      for (const [tag, words] of [["dt", term], ["dd", value]]) {
        list.append(Object.assign(document.createElement(tag), { textContent: words }));
      }
    }
    tip.replaceChildren(Object.assign(document.createElement("strong"), { textContent: name }), list);
    place(spot);
  }

  // Beside the point, inside the plot; on narrow screens the style puts it below.
  function place(spot) {
    const box = plot.getBoundingClientRect();
    const { x, y } = middle(spot);
    const right = x - box.left < box.width / 2;
    tip.style.left = right ? `${x - box.left + 16}px` : "auto";
    tip.style.right = right ? "auto" : `${box.right - x + 16}px`;
    const inside = svg.getBoundingClientRect();
    const top = Math.max(inside.top, Math.min(y - 20, inside.bottom - tip.offsetHeight));
    tip.style.top = `${top - box.top}px`;
  }

  function middle(spot) {
    const box = spot.querySelector(".mark").getBoundingClientRect();
    return { x: box.left + box.width / 2, y: box.top + box.height / 2 };
  }

  function nearest(event) {
    let best = null;
    let least = REACH; // of equals the last one, which is drawn on top
    for (const spot of visible()) {
      const { x, y } = middle(spot);
      const far = Math.hypot(event.clientX - x, event.clientY - y);
      if (far <= least) [best, least] = [spot, far];
    }
    return best;
  }

  svg.addEventListener("pointermove", (event) => {
    const spot = nearest(event);
    if (spot) show(spot);
  });
  svg.addEventListener("click", (event) => show(nearest(event)));
  svg.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    const here = visible();
    const at = here.indexOf(shown);
    const ends = { Home: here[0], End: here.at(-1) };
    const next = step ? here[(at + step + here.length) % here.length] : ends[event.key];
    if (!next) return;
    event.preventDefault();
    next.focus();
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") show(null);
  });

  const buttons = [...plot.querySelectorAll("button[data-series]")];
  plot.querySelector(".toggles").hidden = false;
  for (const button of buttons) {
    button.addEventListener("click", () => {
      const on = button.getAttribute("aria-pressed") !== "true";
      button.setAttribute("aria-pressed", String(on));
      svg.querySelectorAll(`[data-series="${button.dataset.series}"]`).forEach((part) => part.classList.toggle("off", !on));
      if (shown?.classList.contains("off")) show(null);
      reachable();
    });
  }
  reachable();
});
