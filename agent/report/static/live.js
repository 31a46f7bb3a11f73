// Updates a running run: figures every 1.5 seconds, chart and trials when a trial has ended.
"use strict";
const place = document.getElementById("live");
const show = {
  points: (value) => (value === null ? "-" : (100 * value).toFixed(1)),
  dollars: (value) => (value === null ? "unknown price" : "$" + value.toFixed(4)),
  loss: (value) => (value === null ? "-" : value.toFixed(3)),
  plain: (value) => String(value ?? 0),
};
let seen = null;
let failures = 0;

async function redraw() {
  const reply = await fetch(location.href);
  if (!reply.ok) return;
  const fresh = new DOMParser().parseFromString(await reply.text(), "text/html");
  for (const old of document.querySelectorAll("[data-live]")) {
    if (old.contains(document.activeElement) || old.querySelector("input:checked")) continue;
    const now = fresh.querySelector(`[data-live="${old.dataset.live}"]`);
    if (now) old.replaceWith(document.importNode(now, true));
  }
}

async function look() {
  const state = document.getElementById("live-state");
  try {
    const reply = await fetch(place.dataset.url);
    if (!reply.ok) throw new Error(reply.statusText);
    const now = await reply.json();
    failures = 0;
    state.textContent = "";
    if (now.status !== "running") return location.reload();
    for (const each of place.querySelectorAll("[data-show]")) {
      const name = each.dataset.show;
      const value = name in now ? now[name] : now.trials[name];
      each.textContent = show[each.dataset.as ?? "plain"](value);
    }
    const bar = document.getElementById("progress");
    bar.max = now.planned || 1;
    bar.value = now.calls;
    if (seen !== null && seen !== now.changes) await redraw();
    seen = now.changes;
  } catch {
    failures += 1;
    if (failures > 2) state.textContent = "The server does not answer; is `optimize ui` still running?";
  }
  setTimeout(look, 1500 * Math.min(1 + failures, 8));
}

look();
