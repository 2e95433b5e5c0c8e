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

// A picture of one's own: it is uploaded, and the page shows what is like it.
const upload = document.querySelector("#upload");
upload?.addEventListener("change", async () => {
  const fault = document.querySelector("#fault");
  fault.hidden = true;
  try {
    const reply = await fetch("/v1/uploads", { method: "POST", body: upload.files[0] });
    const said = await reply.json();
    if (!reply.ok) throw new Error(said.error.message);
    location.search = new URLSearchParams({ like: said.image_id });
  } catch (error) {
    fault.textContent = `The picture was not taken: ${error.message}`;
    fault.hidden = false;
    upload.value = "";
  }
});
