// The search page: the query is the page's address, so that every state can be linked to.
"use strict";

const $ = (id) => document.getElementById(id);

function make(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value !== false && value !== null) made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

const facts = $("facts") ? JSON.parse($("facts").dataset.facts) : null;
const method = (name) => facts.methods.find((each) => each.name === name);
const gallery = (name) => facts.galleries.find((each) => each.name === name);
const thumbnail = (id, side = 320) => `/v1/images/${id}/thumbnail?side=${side}`;
const words = (name) => name.replaceAll("_", " ");

// ---------------------------------------------------------------- the query and the address

let query;
let names = {}; // image id -> file name, for the trail and for commands
let asked = 0; // the latest search; answers of earlier ones are dropped

/** The method that a gallery opens with: one that looks at the picture and at the text. */
function usualOf(own) {
  return ["cvsi", "image-text-sum", ...own.methods].find((name) => own.methods.includes(name)) || "";
}

function fromAddress() {
  const given = new URLSearchParams(location.search);
  const first = facts.galleries.find((each) => each.methods.length) || facts.galleries[0];
  const own = gallery(given.get("gallery")) || first;
  const usual = usualOf(own);
  const weights = { query: {}, gallery: {} };
  for (const [name, value] of given) {
    const [side, feature] = name.split(".");
    if (feature && weights[side] && isFinite(value)) weights[side][feature] = Number(value);
  }
  const steps = given.getAll("trail").map((step) => {
    const [ref, ...text] = step.split("|");
    return { ref, text: text.join("|") };
  });
  return {
    gallery: own.name,
    method: own.methods.includes(given.get("method")) ? given.get("method") : usual,
    other: own.methods.includes(given.get("other")) ? given.get("other") : "",
    text: given.get("text") || "",
    ref: given.get("ref") || "",
    k: Math.min(Math.max(1, Number(given.get("k")) || 12), facts.most),
    weights,
    trail: steps.filter((step) => /^[0-9a-f]{64}$/.test(step.ref)),
  };
}

function address() {
  const own = new URLSearchParams();
  for (const name of ["gallery", "method", "other", "text", "ref", "k"]) {
    if (query[name]) own.set(name, query[name]);
  }
  for (const side of ["query", "gallery"]) {
    for (const [name, value] of Object.entries(query.weights[side])) own.set(`${side}.${name}`, value);
  }
  for (const step of query.trail) own.append("trail", `${step.ref}|${step.text}`);
  return `${location.pathname}?${own}`;
}

function go(change) {
  // What stands in the field is the text, so that none is lost that was typed meanwhile.
  Object.assign(query, { text: $("text").value }, change);
  history.pushState(null, "", address());
  show();
  search();
}

// ---------------------------------------------------------------- controls

function options(select, values, chosen) {
  select.replaceChildren(
    ...values.map(([value, text]) => make("option", { value, selected: value === chosen && "" }, text)),
  );
}

function show() {
  const ready = gallery(query.gallery).methods.map((name) => [name, method(name)?.title || name]);
  options($("gallery"), facts.galleries.map((each) => [each.name, `${each.name} (${each.images})`]), query.gallery);
  options($("method"), ready, query.method);
  options($("other"), [["", "nothing"], ...ready.filter(([name]) => name !== query.method)], query.other);
  $("warning").textContent = gallery(query.gallery).warning;
  $("warning").hidden = !gallery(query.gallery).warning;
  $("text").value = query.text;
  $("k").value = query.k;
  $("k-shown").value = query.k;
  $("reference").hidden = !query.ref;
  if (query.ref) {
    $("reference").src = thumbnail(query.ref);
    $("reference").alt = `Reference: ${names[query.ref] || "the chosen picture"}`;
    $("hint").textContent = names[query.ref] || "";
  }
  sliders();
  trail();
}

function sliders() {
  const own = method(query.method);
  $("weights").hidden = !own || !own.movable;
  if (!own || !own.movable) return;
  const rows = [];
  for (const side of ["query", "gallery"]) {
    const features = Object.entries(own.weights[side]);
    if (features.length < 2) continue;
    for (const [name, usual] of features) {
      const value = query.weights[side][name] ?? usual;
      const id = `weight-${side}-${name}`;
      const shown = make("output", { for: id }, Number(value).toFixed(2));
      const slide = make("input", { id, type: "range", min: 0, max: 1, step: 0.05, value });
      slide.addEventListener("input", () => {
        shown.value = Number(slide.value).toFixed(2);
        query.weights[side][name] = Number(slide.value);
        history.replaceState(null, "", address());
        later();
      });
      const title = side === "query" ? words(name) : `gallery: ${words(name)}`;
      rows.push(make("div", {}, make("label", { for: id }, `${title}: `, shown), slide));
    }
  }
  $("weights").hidden = !rows.length;
  $("weights").querySelector("legend").textContent = `Weights of ${own.title}`;
  $("sliders").replaceChildren(...rows);
}

let timer;
function later() {
  clearTimeout(timer);
  timer = setTimeout(search, 120);
}

function trail() {
  const steps = query.trail.map((step, place) =>
    make(
      "button",
      {
        type: "button",
        onclick: () => go({ ref: step.ref, text: step.text, trail: query.trail.slice(0, place) }),
        "aria-label": `Back to step ${place + 1}: ${step.text}`,
      },
      make("img", { src: thumbnail(step.ref, 160), alt: "" }),
      step.text,
    ),
  );
  if (steps.length) {
    steps.push(make("button", { type: "button", id: "back", onclick: back }, "← Step back"));
  }
  $("trail").replaceChildren(...steps);
}

function back() {
  const last = query.trail[query.trail.length - 1];
  go({ ref: last.ref, text: last.text, trail: query.trail.slice(0, -1) });
}

function use(hit) {
  names[hit.image_id] = hit.name;
  const step = { ref: query.ref, text: query.text };
  go({ ref: hit.image_id, trail: [...query.trail, step] });
  $("text").focus();
  $("text").select();
  window.scrollTo({ top: 0 });
}

// ---------------------------------------------------------------- asking

async function told(reply) {
  if (reply.ok) return reply.json();
  let message = `the service answered ${reply.status}`;
  try {
    message = (await reply.json()).error.message;
  } catch {
    // a proxy's answer has no message of ours
  }
  throw new Error(message);
}

function fault(message) {
  $("fault").hidden = !message;
  $("fault").textContent = message;
}

async function upload(file) {
  if (!file) return;
  fault("");
  $("status").textContent = `Uploading ${file.name} …`;
  try {
    const headers = { "content-type": file.type || "application/octet-stream" };
    const kept = await told(await fetch("/v1/uploads", { method: "POST", body: file, headers }));
    names[kept.image_id] = file.name;
    $("status").textContent = "";
    go({ ref: kept.image_id, trail: [] });
  } catch (error) {
    $("status").textContent = "";
    fault(error.message);
  }
}

function body(name) {
  const own = name === query.method ? query.weights : { query: {}, gallery: {} };
  return {
    gallery: query.gallery, text: query.text, image_id: query.ref, method: name, k: query.k, weights: own,
  };
}

async function search() {
  clearTimeout(timer);
  fault("");
  $("copy").hidden = true;
  if (!query.method) {
    $("results").replaceChildren();
    const lacking =
      `The gallery ${query.gallery} has no features under this profile (see Progress): ` +
      `cirflow run embed-gallery --set collection=${query.gallery}`;
    fault(gallery(query.gallery).fault || lacking);
    return;
  }
  if (!query.ref || !query.text.trim()) {
    $("results").replaceChildren();
    $("status").textContent = query.ref ? "Type how the picture differs." : "Choose a picture to begin.";
    return;
  }
  const mine = ++asked;
  const wanted = [query.method, ...(query.other ? [query.other] : [])];
  $("results").classList.add("busy");
  $("status").textContent = "Searching …";
  try {
    const answers = await Promise.all(
      wanted.map(async (name) =>
        told(
          await fetch("/v1/search", {
            method: "POST",
            headers: { "content-type": "application/json" },
            body: JSON.stringify(body(name)),
          }),
        ),
      ),
    );
    if (mine !== asked) return;
    $("results").classList.toggle("two", answers.length > 1);
    $("results").replaceChildren(...answers.map(column));
    const [first] = answers;
    const lacking = first.without_features ? `, ${first.without_features} of them without features` : "";
    $("status").textContent =
      `The best ${first.hits.length} of ${first.gallery_size} ` +
      `${first.gallery_size === 1 ? "picture" : "pictures"}${lacking}, ` +
      `${Math.round(first.milliseconds)} ms`;
    copies(first);
  } catch (error) {
    if (mine !== asked) return;
    $("status").textContent = "";
    $("results").replaceChildren();
    fault(error.message);
  } finally {
    if (mine === asked) $("results").classList.remove("busy");
  }
}

// ---------------------------------------------------------------- hits

function column(answer) {
  const own = method(answer.method);
  const said = [];
  if (answer.texts.captions.length) said.push(`Caption: ${answer.texts.captions[0]}`);
  if (answer.texts.edits.length) said.push(`Edited: ${answer.texts.edits[0]}`);
  if (answer.texts.objects) said.push(`Added: ${answer.texts.objects}`);
  return make(
    "section",
    { "aria-label": own.title, "data-method": answer.method },
    make("h2", {}, own.title),
    make("p", { class: "texts" }, own.description),
    ...(own.label ? [make("p", { class: "notice" }, own.label)] : []),
    ...(said.length ? [make("p", { class: "texts" }, said.join(" · "))] : []),
    make("ol", { class: "pictures" }, ...answer.hits.map((hit) => card(hit, answer))),
  );
}

function card(hit, answer) {
  names[hit.image_id] = hit.name;
  return make(
    "li",
    { class: "picture", "data-image": hit.image_id, "data-score": hit.score },
    make(
      "button",
      { class: "open", type: "button", "aria-label": `Enlarge ${hit.rank}: ${hit.name}`, onclick: () => enlarge(hit, answer) },
      make("img", { src: hit.thumbnail, alt: "", loading: "lazy" }),
    ),
    make(
      "div",
      { class: "caption" },
      make("span", {}, `${hit.rank}. ${hit.name}`),
      make("span", { class: "quiet score" }, hit.score.toFixed(3)),
    ),
    make("button", { class: "next", type: "button", onclick: () => use(hit), "aria-label": `Use ${hit.name} as the reference` }, "Use as reference"),
  );
}

async function enlarge(hit, answer) {
  const bars = [];
  for (const side of ["query", "gallery"]) {
    const terms = Object.entries(hit.contributions[side]);
    if (!terms.length) continue;
    const most = Math.max(...terms.map(([, term]) => Math.abs(term)), 1e-9);
    bars.push(make("h3", {}, side === "query" ? "What each part of the query adds" : "What each part of the picture adds"));
    for (const [name, term] of terms) {
      bars.push(
        make(
          "div",
          { class: "bar" },
          make("span", {}, words(name)),
          make("meter", { min: 0, max: most, value: Math.abs(term), "aria-label": words(name) }),
          make("span", {}, term.toFixed(3)),
        ),
      );
    }
  }
  const captions = make("ul", {});
  const shown = make(
    "div",
    { class: "large" },
    make("img", { src: hit.image, alt: hit.name }),
    make(
      "div",
      {},
      make("h2", { id: "large-name" }, `${hit.rank}. ${hit.name}`),
      make("p", { class: "quiet" }, `${method(answer.method).title}, score ${hit.score.toFixed(4)}`),
      ...(hit.verdict === null ? [] : [make("p", {}, `The verifier gives it ${hit.verdict.toFixed(2)}.`)]),
      ...bars,
      make("h3", {}, "Captions"),
      captions,
      make("p", { class: "quiet" }, hit.paths.join(", ")),
      make(
        "div",
        { class: "buttons" },
        make("button", { class: "main", type: "button", onclick: () => { $("large").close(); use(hit); } }, "Use as reference"),
        make("button", { type: "button", onclick: () => $("large").close() }, "Close"),
      ),
    ),
  );
  $("large").replaceChildren(shown);
  $("large").showModal();
  try {
    const own = await told(await fetch(`/v1/images/${hit.image_id}/about?gallery=${encodeURIComponent(answer.gallery)}`));
    captions.replaceChildren(...(own.captions.length ? own.captions : ["none yet"]).map((text) => make("li", {}, text)));
  } catch (error) {
    captions.replaceChildren(make("li", {}, error.message));
  }
}

// ---------------------------------------------------------------- copies

const quoted = (word) => (/^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\"'\"'")}'`);

async function copies(answer) {
  const reference = answer.image_id;
  let image = names[reference] || "REFERENCE.jpg";
  try {
    const own = await told(await fetch(`/v1/images/${reference}/about?gallery=${encodeURIComponent(answer.gallery)}`));
    image = own.paths[0] || image;
  } catch {
    // an uploaded picture's path is not known here: its file name stands for it
  }
  const line = ["cirflow", "search", "--gallery", query.gallery, "--image", image, "--text", query.text];
  line.push("--method", query.method, "-k", String(query.k));
  for (const side of ["query", "gallery"]) {
    for (const [name, value] of Object.entries(query.weights[side])) line.push("--weight", `${side}.${name}=${value}`);
  }
  $("as-command").textContent = `${line.map(quoted).join(" ")} ${facts.chosen}`.trim();
  const sent = quoted(JSON.stringify(body(query.method)));
  $("as-call").textContent =
    `curl --data-binary @${quoted(image)} -H 'content-type: image/*' ${location.origin}/v1/uploads\n` +
    `curl -H 'content-type: application/json' -d ${sent} ${location.origin}/v1/search`;
  $("copy").hidden = false;
}

async function copy(id) {
  const shown = $(id);
  try {
    await navigator.clipboard.writeText(shown.textContent);
    $("status").textContent = "Copied.";
  } catch {
    getSelection().selectAllChildren(shown); // the browser lets no page write: the user may
  }
}

// ---------------------------------------------------------------- beginning

function begin() {
  query = fromAddress();
  show();
  search();
}

if (facts) {
  $("query").addEventListener("submit", (event) => {
    event.preventDefault();
    go({});
  });
  const none = () => ({ query: {}, gallery: {} });
  $("gallery").addEventListener("change", () => {
    const own = gallery($("gallery").value);
    const kept = own.methods.includes(query.method) ? query.method : usualOf(own);
    const other = own.methods.includes(query.other) && query.other !== kept ? query.other : "";
    go({ gallery: own.name, method: kept, other, weights: kept === query.method ? query.weights : none() });
  });
  $("method").addEventListener("change", () => {
    const chosen = $("method").value;
    go({ method: chosen, other: query.other === chosen ? "" : query.other, weights: none() });
  });
  $("other").addEventListener("change", () => go({ other: $("other").value }));
  $("reset").addEventListener("click", () => go({ weights: none() }));
  $("k").addEventListener("input", () => {
    query.k = Number($("k").value);
    $("k-shown").value = query.k;
    history.replaceState(null, "", address());
    later();
  });
  $("reference").addEventListener("error", () => {
    $("reference").hidden = true;
    $("hint").textContent = "This picture is not kept any more.";
  });
  $("file").addEventListener("change", () => upload($("file").files[0]));
  const drop = $("drop");
  for (const name of ["dragover", "dragleave", "drop"]) {
    drop.addEventListener(name, (event) => {
      event.preventDefault();
      drop.classList.toggle("over", name === "dragover");
    });
  }
  drop.addEventListener("drop", (event) => upload(event.dataTransfer.files[0]));
  addEventListener("paste", (event) => {
    const file = [...event.clipboardData.files].find((each) => each.type.startsWith("image/"));
    if (file) upload(file);
  });
  for (const button of document.querySelectorAll("[data-copy]")) {
    button.addEventListener("click", () => copy(button.dataset.copy));
  }
  addEventListener("popstate", begin);
  begin();
}
