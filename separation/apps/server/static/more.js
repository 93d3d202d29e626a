/** The page, alive: songs are dropped on it, and the queue of this machine is shown and asked for what is new. */
const LOOK = 500; // milliseconds between two looks at the queue
const STATES = { uploading: "on its way", waiting: "waiting", running: "", failed: "", done: "" };

receive(send);

async function send(files) {
  for (const file of files) {
    // One after the other: the first song is heard the sooner.
    await fetch(`/songs?name=${encodeURIComponent(file.name)}`, { method: "POST", body: file }).catch(() => {});
    look();
  }
}

const rows = new Map();

function showEntry({ key, name, state, progress, reason }) {
  let row = rows.get(key);
  if (!row) {
    row = addRow(() => fetch(`/songs/${key}`, { method: "DELETE" }).then(look));
    rows.set(key, row);
  }
  row.className = state;
  row.querySelector(".title").textContent = name;
  row.querySelector(".state").textContent = reason || STATES[state] || `${Math.round(100 * progress)} %`;
  row.querySelector("progress").hidden = state === "failed";
  const bar = row.querySelector("progress");
  if (state === "running") bar.value = progress;
  else bar.removeAttribute("value");
  bar.setAttribute("aria-label", `Progress of ${name}`);
  row.querySelector(".remove").setAttribute("aria-label", state === "failed" ? `Dismiss ${name}` : `Cancel ${name}`);
}

/** What each listed song was when it was listed, to see when it has changed. */
const listed = new Map(songs.map(({ name }) => [name, ""]));

async function look() {
  const answer = await fetch("/state").catch(() => null);
  if (!answer?.ok) return;
  const { queue, songs: entries } = await answer.json();
  const shown = queue.filter(({ state }) => state !== "done" && state !== "cancelled");
  for (const [key, row] of rows) if (!shown.some((entry) => entry.key === key)) (row.remove(), rows.delete(key));
  shown.forEach(showEntry);
  for (const entry of entries) {
    const facts = JSON.stringify(entry);
    if (listed.get(entry.name) === "") listed.set(entry.name, facts); // it came with the page
    if (listed.get(entry.name) === facts) continue;
    listed.set(entry.name, facts);
    addDownloads(list(entry));
  }
}

const FOUR = ["bass", "drums", "other", "vocals"]; // the stems that a stem file holds

function addDownloads(song) {
  const add = (kind, what) => {
    const link = document.createElement("a");
    link.className = "whole";
    link.textContent = kind;
    link.title = `All stems as ${what}`;
    link.href = `/${kind}?song=${encodeURIComponent(song.name)}`;
    link.setAttribute("aria-label", `Download all stems of ${song.name} as ${what}`);
    song.card.querySelector(".clock").before(link);
  };
  add("zip", "a zip");
  const names = song.stems.map((stem) => stem.name).sort();
  if (names.join() === FOUR.join()) add("stem", "one file for DJ programs (.stem.m4a)");
}

songs.forEach(addDownloads);
setInterval(look, LOOK);
look();
