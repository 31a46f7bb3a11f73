// Labelling by keys: each button with a data-key is pressed by that key, but for keys that are typed into a field.
"use strict";
const buttons = new Map([...document.querySelectorAll("button[data-key]")].map((each) => [each.dataset.key, each]));
let sent = false;

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey || event.repeat || sent) return;
  if (event.target.closest("input, textarea, select")) return;
  const button = buttons.get(event.key);
  if (!button) return;
  sent = true;
  event.preventDefault();
  button.click();
});
// A page that the browser kept and shows again (its back button) takes keys again.
window.addEventListener("pageshow", (event) => {
  if (event.persisted) sent = false;
});
