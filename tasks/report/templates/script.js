"use strict";
// The page reads without this: it sorts tables, filters strips, and unfolds everything for print.
const make = (tag, properties) => Object.assign(document.createElement(tag), properties);

for (const table of document.querySelectorAll("[data-sortable]")) {
  const heads = [...table.querySelectorAll("th[data-sort]")];
  for (const head of heads) {
    const button = make("button", { type: "button", className: "sort" });
    const label = head.querySelector(".metric") ?? head;
    button.append(...label.childNodes);
    label.append(button);
    button.addEventListener("click", () => {
      const upwards = head.getAttribute("aria-sort") === "descending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", upwards ? "ascending" : "descending");
      for (const body of table.tBodies) sortRows(body, head.cellIndex, upwards ? 1 : -1);
    });
  }
}

function sortRows(body, column, sign) {
  const value = (row) => row.cells[column].dataset.value;
  const rows = [...body.rows].filter((row) => !row.classList.contains("group"));
  rows.sort((a, b) => {
    if (value(a) === "" || value(b) === "") return (value(a) === "") - (value(b) === "");
    return sign * (Number(value(a)) - Number(value(b)));
  });
  body.append(...rows);
}

const OUTCOMES = { miss: "Missed", hit: "Found", open: "Not judged" };
for (const area of document.querySelectorAll("[data-filterable]")) {
  const strips = [...area.querySelectorAll(".strip")];
  const chosen = { outcome: "", method: "" };
  const bar = make("div", { className: "filters" });
  for (const field of Object.keys(chosen)) {
    const values = [...new Set(strips.map((strip) => strip.dataset[field]))];
    if (values.length < 2) continue;
    const group = make("div", { role: "group", ariaLabel: `Filter by ${field}` });
    for (const value of ["", ...values]) {
      const text = value === "" ? "All" : field === "outcome" ? OUTCOMES[value] : value;
      const button = make("button", { type: "button", textContent: text });
      button.setAttribute("aria-pressed", String(value === ""));
      button.addEventListener("click", () => {
        chosen[field] = value;
        for (const other of group.children)
          other.setAttribute("aria-pressed", String(other === button));
        apply();
      });
      group.append(button);
    }
    bar.append(group);
  }
  if (bar.children.length) area.querySelector("h3").after(bar);

  function apply() {
    for (const strip of strips)
      strip.hidden = Object.entries(chosen).some(([field, value]) => value && strip.dataset[field] !== value);
    for (const group of area.querySelectorAll(".outcome"))
      group.hidden = !group.querySelector(".strip:not([hidden])");
  }
}

const large = make("dialog", { className: "large", ariaLabel: "Picture" });
const shown = make("img", {});
const words = make("p", {});
large.append(shown, words);
large.addEventListener("click", () => large.close());
for (const picture of document.querySelectorAll(".strip img, .triplet img")) {
  Object.assign(picture, { tabIndex: 0, role: "button" });
  const enlarge = () => {
    shown.src = picture.src;
    words.textContent = shown.alt = picture.alt;
    large.isConnected || document.body.append(large);
    large.showModal();
  };
  picture.addEventListener("click", enlarge);
  picture.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" && event.key !== " ") return;
    event.preventDefault();
    enlarge();
  });
}

window.addEventListener("beforeprint", () => {
  for (const details of document.querySelectorAll("details")) details.open = true;
});
