/** The page in a browser alone: songs are decoded here, come apart in a worker, and are listed with their stems. */
const RATE = 44100; // of the networks; a browser resamples what it decodes
const threads = new URLSearchParams(location.search).get("threads") ?? "";
const served = location.protocol !== "file:"; // from disk, browsers start no worker
const worker = served ? new Worker(`worker.js?threads=${threads}`, { type: "module" }) : null;
document.getElementById("disk").hidden = served;
document.getElementById("drop").hidden = !served;

receive(take);

const waiting = new Map(); // songs under way, by their numbers
let number = 0;

/** A row of the queue: a song that is on its way. */
class Row {
  constructor(file, network) {
    this.id = ++number;
    this.name = nameOf(file);
    this.network = network;
    this.element = addRow(() => this.leave());
    this.part(".title").textContent = this.name;
    this.part("progress").setAttribute("aria-label", `Progress of ${this.name}`);
    this.part(".remove").setAttribute("aria-label", `Cancel ${this.name}`);
    this.say("waiting");
    waiting.set(this.id, this);
  }

  part(selector) {
    return this.element.querySelector(selector);
  }

  say(state) {
    this.part(".state").textContent = state;
  }

  move(share) {
    this.begun ??= { share, time: performance.now() };
    const { begun } = this;
    const spent = (performance.now() - begun.time) / 1000;
    const left = share > begun.share ? (spent / (share - begun.share)) * (1 - share) : 0;
    this.part("progress").value = share;
    this.say(`${Math.round(100 * share)} %${left ? `, ${clock(Math.ceil(left))} left` : ""}`);
  }

  fail(reason) {
    this.element.className = "failed";
    this.say(`“${this.name}” ${reason}`);
    this.part("progress").hidden = true;
    this.part(".remove").setAttribute("aria-label", `Dismiss ${this.name}`);
  }

  leave() {
    waiting.delete(this.id);
    worker.postMessage({ cancel: this.id });
    this.element.remove();
  }
}

/** What a song is called. Another song of that name gets a number: it would take the first one's place on the page. */
function nameOf(file) {
  const name = file.name.replace(/\.[^.]*$/, "") || file.name;
  const taken = new Set([...songs, ...waiting.values()].map((song) => song.name));
  let free = name;
  for (let n = 2; taken.has(free); n++) free = `${name} ${n}`;
  return free;
}

async function take(files) {
  if (!served) return;
  const network = document.getElementById("network").value;
  const rows = files.map((file) => [file, new Row(file, network)]);
  for (const [file, row] of rows) {
    // One is decoded when the one before it has come apart: decoded songs are large.
    await new Promise((done) => ((row.done = done), begin(file, row)));
  }
}

async function begin(file, row) {
  if (!waiting.has(row.id)) return row.done();
  row.say("reading");
  let song;
  try {
    song = await new OfflineAudioContext(2, 1, RATE).decodeAudioData(await file.arrayBuffer());
  } catch {
    row.fail("is no audio that this browser can play: try wav, mp3, flac or m4a.");
    return row.done();
  }
  if (song.numberOfChannels > 2) {
    row.fail(`has ${song.numberOfChannels} channels: mix it down to stereo first.`);
    return row.done();
  }
  const channels = Array.from({ length: song.numberOfChannels }, (_, n) => song.getChannelData(n).slice());
  if (!waiting.has(row.id)) return row.done();
  row.leave = () => (Row.prototype.leave.call(row), row.done());
  row.say("loading the network");
  worker.postMessage({ id: row.id, network: row.network, channels }, channels.map((channel) => channel.buffer));
}

worker?.addEventListener("message", ({ data: { id, progress, stems, channels, seconds, beyond, error, threads } }) => {
  const row = waiting.get(id);
  if (!row) return;
  if (progress !== undefined) return row.move(progress);
  if (error) row.fail(`cannot come apart: ${error}`);
  else {
    row.leave();
    const entries = stems.map((stem) => ({
      name: stem.name,
      audio: `${URL.createObjectURL(wav(stem.samples, channels, RATE))}#.wav`,
      picture: URL.createObjectURL(stem.picture),
      file: `${row.name} - ${stem.name.replaceAll("_", " ")}.wav`,
    }));
    const song = list({ name: row.name, seconds: seconds.song, rate: RATE, stems: entries });
    Object.assign(song.card.dataset, { took: seconds.took.toFixed(2), threads });
    if (beyond) song.card.querySelector(".transport").after(remark(`beyond full scale, and cut off: ${beyond} samples`));
  }
  row.done();
});
worker?.addEventListener("error", () => {
  for (const row of waiting.values()) {
    row.fail("cannot come apart: this browser lacks what it takes; try a newer one.");
    row.done?.();
  }
});

function remark(text) {
  const element = document.createElement("p");
  element.className = "hint";
  element.textContent = text;
  return element;
}
