"use strict";
// The page renews what it shows, in place: a reader keeps the place on it.
const EVERY_MS = 5000;

async function renew() {
  const shown = document.querySelector("#made");
  if (shown.dataset.whole) return;
  try {
    const reply = await fetch(location.href, { headers: { accept: "text/html" } });
    if (reply.ok) {
      const page = new DOMParser().parseFromString(await reply.text(), "text/html");
      shown.replaceWith(document.adoptNode(page.querySelector("#made")));
    }
  } catch { /* the service is away; the next time may find it */ }
  setTimeout(renew, EVERY_MS);
}

setTimeout(renew, EVERY_MS);
