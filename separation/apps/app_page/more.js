/** The page as an app: it sends songs to the API of this machine, follows their jobs and lists what is done. */
const LOOK = 500; // milliseconds between two looks at the jobs
const SONGS = 10; // looks between two at the list of songs, which other programs may add to
const FOUR = ["bass", "drums", "other", "vocals"]; // the stems that a stem file holds
const UNDER_WAY = ["uploading", "waiting", "running", "failed"].map((state) => `state=${state}`).join("&");
const LABELS = {
  all: "vocals, drums, bass and other",
  two: "vocals and accompaniment",
  fast: "fast",
  best: "best (slower)",
  video: "video, picture kept",
};

/** The answer to a call of the API as JSON. Throws what the app says when it refuses. */
async function call(address, options) {
  const answer = await fetch(`api/${address}`, options);
  const content = answer.status === 204 ? null : await answer.json();
  if (!answer.ok) throw Object.assign(new Error(content.message), { status: answer.status });
  return content;
}

/** What can be chosen is in the description of the API; the last choice is remembered, but for one of videos alone. */
async function offerChoices() {
  const { info, paths } = await (await fetch("openapi.json")).json();
  document.getElementById("licence").textContent = `Weights: ${info["x-licence-of-the-weights"]}`;
  for (const { name, schema } of paths["/api/jobs"].post.parameters) {
    const select = document.getElementById(name);
    if (!select) continue;
    const label = (value) => LABELS[value] ?? value.replaceAll("_", " ");
    select.append(...schema.enum.map((value) => new Option(label(value), value)));
    const last = localStorage.getItem(name);
    select.value = schema.enum.includes(last) ? last : schema.default;
    select.addEventListener("change", () => select.value === "video" || localStorage.setItem(name, select.value));
  }
}

const rows = new Map(); // of jobs, by their ids
const ended = new Set(); // ids of jobs whose rows are over

/** A row of the queue for something that has a title. */
function newRow(title, remove) {
  const row = addRow(() => (row.remove(), remove?.()));
  row.querySelector(".title").textContent = title;
  row.querySelector("progress").setAttribute("aria-label", `Progress of ${title}`);
  row.querySelector(".remove").setAttribute("aria-label", `Cancel ${title}`);
  return row;
}

function showState(row, state, text, progress = null) {
  row.className = state;
  row.querySelector(".state").textContent = text;
  const bar = row.querySelector("progress");
  bar.hidden = state === "failed" || state === "done";
  if (progress === null) bar.removeAttribute("value");
  else bar.value = progress;
  const remove = row.querySelector(".remove");
  if (bar.hidden) remove.setAttribute("aria-label", remove.getAttribute("aria-label").replace("Cancel", "Dismiss"));
}

receive(async (files) => {
  const options = ["stems", "format", "quality"].map((name) => [name, document.getElementById(name).value]);
  const waiting = files.map((file) => [file, newRow(file.name)]);
  for (const [, row] of waiting) showState(row, "unsent", "waiting to be sent");
  for (const [file, row] of waiting) {
    // One after the other: the first song is done the sooner.
    if (!row.isConnected) continue;
    row.hidden = true; // while it is sent, its job has a row
    try {
      showJob(await call(`jobs?${new URLSearchParams([["name", file.name], ...options])}`, { method: "POST", body: file }));
      row.remove();
    } catch (error) {
      row.hidden = error.status === 409; // it was cancelled on its way
      showState(row, "failed", error.status ? error.message : "It could not be sent: the app does not answer, or the file has changed.");
    }
    look();
  }
});

/** A page that goes takes with it the songs that are still to be sent. */
addEventListener("beforeunload", (event) => document.querySelector(".unsent") && event.preventDefault());

function showJob({ id, kind, name, state, progress, error }) {
  if (ended.has(id)) return;
  if (!rows.has(id)) {
    const title = kind === "stem_file" ? `${name}.stem.m4a` : name;
    const row = newRow(title, () => (rows.delete(id), ended.add(id), call(`jobs/${id}`, { method: "DELETE" }).catch(() => {})));
    row.parentElement.insertBefore(row, document.querySelector(".unsent"));
    rows.set(id, row);
  }
  const share = progress ? ` ${Math.round(100 * progress)} %` : "";
  const text = { uploading: `on its way${share}`, waiting: "waiting", running: share || "under way" }[state];
  showState(rows.get(id), state, error?.message ?? text, state === "waiting" ? null : progress);
}

/** A job has ended, or was deleted elsewhere. */
async function endJob(id) {
  const row = rows.get(id);
  rows.delete(id);
  ended.add(id);
  const job = await call(`jobs/${id}`).catch(() => null);
  if (job?.kind === "stems") await listSongs();
  if (!job?.already_there) row.remove();
  if (job?.file) save(job.file);
  const song = songs.find((song) => song.id === job?.song);
  if (!song || job.kind !== "stems") return;
  showRemarks(job);
  if (job.already_there) {
    showState(row, "done", "is there already");
    const show = document.createElement("button");
    show.type = "button";
    show.textContent = "Show";
    show.addEventListener("click", () => point(song));
    row.querySelector(".state").append(show);
  } else point(song, false);
}

/** What is odd about the file of a song, below its title. */
function showRemarks(job) {
  const song = songs.find(({ id }) => id === job.song);
  if (!song || !job.remarks.length) return;
  song.card.querySelector(".hint")?.remove();
  const hint = Object.assign(document.createElement("p"), { className: "hint", textContent: job.remarks.join("; ") });
  song.card.querySelector(".transport").after(hint);
}

/** Let a song's card stand out for a moment. */
function point({ card }, scroll = true) {
  card.classList.remove("fresh");
  if (scroll) card.scrollIntoView({ behavior: "smooth", block: "center" });
  requestAnimationFrame(() => card.classList.add("fresh"));
}

function save(address) {
  const link = document.createElement("a");
  link.href = address;
  link.download = "";
  link.click();
}

let looks = 0;

async function look() {
  try {
    const jobs = await call(`jobs?${UNDER_WAY}`);
    jobs.forEach(showJob);
    for (const id of [...rows.keys()]) if (!jobs.some((job) => job.id === id)) endJob(id);
    if (looks++ % SONGS === 0) await listSongs();
    document.getElementById("lost").hidden = true;
  } catch {
    document.getElementById("lost").hidden = false;
  }
}

const known = new Map(); // entries of listed songs, as text, to see when one has changed

async function listSongs() {
  for (const entry of await call("songs")) {
    if (known.get(entry.id) !== JSON.stringify(entry)) addDownloads(list(entry), entry);
  }
}

function addDownloads(song, entry) {
  known.set(entry.id, JSON.stringify(entry));
  song.id = entry.id;
  const add = (element, text, what) => {
    Object.assign(element, { className: "whole", textContent: text, title: `All stems ${what}` });
    element.setAttribute("aria-label", `Download all stems of ${song.name} ${what}`);
    song.card.querySelector(".clock").before(element);
    return element;
  };
  add(document.createElement("a"), "zip", "in a zip").href = entry.zip;
  if (song.stems.map(({ row }) => row.dataset.stem).sort().join() !== FOUR.join()) return;
  const button = add(document.createElement("button"), "stem", "in one file for DJ programs (.stem.m4a)");
  button.type = "button";
  button.addEventListener("click", () => call(`songs/${song.id}/stem`, { method: "POST" }).then(showJob));
}

for (const entry of JSON.parse(document.getElementById("songs").textContent)) {
  addDownloads(songs.find(({ name }) => name === entry.name), entry);
}
offerChoices();
call("jobs?state=done").then((jobs) => jobs.forEach(showRemarks));
look();
setInterval(look, LOOK);
