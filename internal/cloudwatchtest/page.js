"use strict";
// Rows come as HTML that the server has escaped; everything else is set as text.
const limit = 200;
const rows = document.getElementById("rows");
const live = document.getElementById("live");
let last = Number(document.body.dataset.last);

function state(text, kind) {
  live.textContent = text;
  live.className = "live " + kind;
}

function apply(news) {
  for (const dd of document.querySelectorAll("[data-count]")) {
    const n = news.counts[dd.dataset.count];
    dd.textContent = n.toLocaleString("en");
    dd.classList.toggle("some", n > 0);
  }
  document.getElementById("codes").replaceChildren(...news.codes.map((code) => {
    const span = document.createElement("span");
    span.textContent = code;
    return span;
  }));
  if (news.last < last) { // another server on the same address
    location.reload();
    return;
  }
  if (news.last === last) return;
  const before = last;
  last = news.last;
  const fresh = document.createElement("template");
  fresh.innerHTML = news.rows;
  for (const row of fresh.content.querySelectorAll("tr")) {
    if (Number(row.dataset.seq) > before) row.classList.add("new");
    else row.remove();
  }
  rows.prepend(fresh.content);
  const events = rows.querySelectorAll("tr.event");
  for (let i = limit; i < events.length; i++) {
    if (events[i].nextElementSibling?.classList.contains("detail")) events[i].nextElementSibling.remove();
    events[i].remove();
  }
}

async function poll() {
  try {
    apply(await (await fetch("/latest?after=" + last)).json());
    state("live", "on");
  } catch {
    state("not reachable", "off");
  }
  setTimeout(poll, 500);
}

rows.addEventListener("click", async (click) => {
  const row = click.target.closest("tr.event");
  if (!row || click.ctrlKey || click.metaKey) return;
  click.preventDefault();
  const next = row.nextElementSibling;
  if (next?.classList.contains("detail")) {
    next.remove();
    row.classList.remove("open");
    return;
  }
  const detail = document.createElement("tr");
  detail.className = "detail";
  const cell = detail.insertCell();
  cell.colSpan = row.cells.length;
  const pre = document.createElement("pre");
  cell.append(pre);
  row.after(detail);
  row.classList.add("open");
  try {
    pre.textContent = await (await fetch("/events/" + row.dataset.seq)).text();
  } catch {
    pre.textContent = "The server could not be reached.";
  }
});

for (const dd of document.querySelectorAll("[data-count]")) {
  dd.classList.toggle("some", dd.textContent !== "0");
}
poll();
