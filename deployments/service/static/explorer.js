"use strict";
// Pages work without this: it sends a form when a choice changes, and enlarges pictures in place.
for (const form of document.querySelectorAll("[data-submit]"))
  form.addEventListener("change", (event) => {
    if (event.target.matches("select")) form.requestSubmit();
  });

const large = Object.assign(document.createElement("dialog"), { className: "large" });
const shown = Object.assign(document.createElement("img"), { alt: "" });
const words = document.createElement("p");
const close = Object.assign(document.createElement("button"), { type: "button", textContent: "Close" });
large.setAttribute("aria-label", "Picture");
large.append(shown, words, close);
document.body.append(large);
large.addEventListener("click", () => large.close());
document.addEventListener("click", (event) => {
  const link = event.target.closest("a.zoom");
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  shown.src = link.href;
  words.textContent = shown.alt = link.querySelector("img").alt;
  large.showModal();
});
