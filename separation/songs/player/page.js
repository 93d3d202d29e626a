/** One stem of a song: its row of controls, its picture and its sound. */
class Stem {
  constructor(song, { name, audio, picture, file = "" }) {
    const title = name.replaceAll("_", " ");
    const format = audio.split(".").pop();
    this.song = song;
    this.format = format;
    this.name = title;
    this.row = document.getElementById("stem").content.firstElementChild.cloneNode(true);
    this.row.dataset.stem = name;
    const part = (selector) => this.row.querySelector(selector);
    this.audio = part("audio");
    this.audio.dataset.src = audio;
    part("h3").textContent = title;
    part("img").src = picture;
    part("img").alt = `Spectrogram of ${title}`;
    part("img").addEventListener("load", () => this.picture.classList.add("drawn"));
    part("img").addEventListener("error", (event) => event.target.remove());
    part(".download").href = audio;
    part(".download").download = file || `${song.name} - ${title}.${format}`;
    part(".download").setAttribute("aria-label", `Download ${title} as ${format}`);
    part(".download span").textContent = format;
    this.mute = part(".mute");
    this.mute.setAttribute("aria-label", `Mute ${title}`);
    this.mute.addEventListener("click", () => this.toggle(this.mute));
    this.solo = part(".solo");
    this.solo.setAttribute("aria-label", `Solo ${title}`);
    this.solo.addEventListener("click", ({ altKey, ctrlKey, metaKey }) => {
      if (altKey || ctrlKey || metaKey) for (const other of song.stems) if (other !== this) press(other.solo, false);
      this.toggle(this.solo);
    });
    this.volume = part(".volume");
    this.volume.setAttribute("aria-label", `Volume of ${title}`);
    this.volume.addEventListener("input", () => song.mix());
    this.volume.addEventListener("dblclick", () => ((this.volume.value = 1), song.mix()));
    this.meter = part(".meter");
    this.shown = 0;
    this.picture = part(".picture");
    this.picture.addEventListener("pointerdown", (event) => {
      if (event.button) return;
      this.picture.setPointerCapture(event.pointerId);
      this.anchor = event.shiftKey ? this.time(event) : null; // with Shift a loop is drawn
      if (this.anchor === null) song.seek(this.time(event));
      else song.repeat(null);
    });
    this.picture.addEventListener("pointermove", (event) => {
      if (!this.picture.hasPointerCapture(event.pointerId)) return;
      if (this.anchor === null) song.seek(this.time(event));
      else song.repeat([this.anchor, this.time(event)].sort((a, b) => a - b));
    });
  }

  toggle(button) {
    press(button, !isPressed(button));
    this.song.mix();
  }

  /** Hear it with a gain from 0 to 1. */
  hear(gain) {
    this.audio.muted = !gain;
    if (this.channel) this.channel.gain = gain;
    this.audio.volume = this.channel ? 1 : gain;
    this.row.classList.toggle("silent", !gain);
  }

  /** Show how loud it is now. The meter falls slowly, or a beat would be over before it is seen. */
  measure(playing) {
    if (!this.channel) return;
    this.shown = playing ? Math.max(this.channel.level, this.shown - 0.02) : 0;
    this.meter.style.setProperty("--level", this.shown.toFixed(3));
  }

  /** The time in seconds that a place in the picture stands for. */
  time({ clientX }) {
    const { left, width } = this.picture.getBoundingClientRect();
    return Math.min(Math.max((clientX - left) / width, 0), 1) * this.song.seconds;
  }
}

/** A song: one transport for all of its stems. Only one song is loaded at a time, so a page may list hundreds. */
class Song {
  static current = null;

  constructor({ name, seconds, stems, title = name, artist = "", cover, rate }) {
    this.name = name;
    this.title = title;
    this.artist = artist;
    this.cover = cover;
    this.seconds = seconds;
    this.rate = rate;
    this.ensemble = null;
    this.at = 0;
    this.card = document.getElementById("song").content.firstElementChild.cloneNode(true);
    this.card.setAttribute("aria-label", name);
    const part = (selector) => this.card.querySelector(selector);
    part("h2").textContent = title;
    part(".artist").textContent = artist;
    part(".artist").hidden = !artist;
    part(".cover").hidden = !cover;
    part(".cover").alt = `Cover of ${title}`;
    if (cover) part(".cover").src = cover;
    part(".cover").addEventListener("error", (event) => event.target.remove());
    part(".length").textContent = clock(Math.round(seconds));
    this.trouble = part(".trouble");
    this.now = part(".now");
    this.button = part(".play");
    this.button.addEventListener("click", () => this.toggle());
    this.position = part(".position");
    this.position.max = seconds;
    this.position.setAttribute("aria-label", `Position in ${name}`);
    this.position.addEventListener("input", () => this.seek(Number(this.position.value)));
    this.stems = stems.map((stem) => new Stem(this, stem));
    part(".stems").append(...this.stems.map((stem) => stem.row));
    part(".ruler").append(...ruler(seconds));
    this.loop = null;
    this.original = part(".original");
    this.original.setAttribute("aria-label", `Hear the original of ${name}`);
    this.original.addEventListener("click", () => this.compare());
    this.original.hidden = !isWhole(stems.map((stem) => stem.name));
    this.saved = part(".save");
    this.saved.setAttribute("aria-label", `Download this mix of ${name}`);
    this.saved.addEventListener("click", () => this.save());
    this.saved.hidden = location.protocol === "file:"; // there browsers let no page read a file
    this.mix();
    this.show();
  }

  get playing() {
    return this.ensemble?.playing ?? false;
  }

  toggle() {
    if (this.playing) return this.ensemble.pause();
    this.enter();
    this.stems[0].channel?.wake();
    this.ensemble.play();
  }

  /** Go to a time in seconds. If a song was playing, this one goes on from there. */
  seek(time) {
    const playing = Song.current?.playing;
    this.at = Math.min(Math.max(time, 0), this.seconds);
    this.enter();
    this.ensemble.seek(this.at);
    if (playing && !this.playing) this.ensemble.play();
    this.show();
  }

  /** Play from the first to the second of two times over and over; null: to the end. */
  repeat(loop) {
    this.loop = loop && loop[1] - loop[0] > 0.05 ? loop : null;
    const [from, to] = (this.loop ?? [0, 0]).map((time) => time / this.seconds);
    this.card.style.setProperty("--from", from);
    this.card.style.setProperty("--to", to);
    if (this.loop && (this.at < this.loop[0] || this.at > this.loop[1])) this.seek(this.loop[0]);
  }

  /** Hear the song as it was, or the mix again: the stems sum to the song, so it is as loud as they are together. */
  compare() {
    press(this.original, !isPressed(this.original));
    this.mix();
  }

  /** What is heard of each stem now, from 0 to 1. */
  gains() {
    const soloed = this.stems.some((stem) => isPressed(stem.solo));
    return this.stems.map((stem) => {
      if (isPressed(this.original)) return 1;
      const silent = isPressed(stem.mute) || (soloed && !isPressed(stem.solo));
      return silent ? 0 : Number(stem.volume.value) ** 2; // about as loudness is heard
    });
  }

  /** Write what is heard now into a wav file. */
  async save() {
    this.saved.disabled = true;
    try {
      const gains = this.gains();
      const mixed = await render(this.stems.map((stem) => stem.audio.dataset.src), gains);
      const without = this.stems.filter((_, index) => !gains[index]).map((stem) => stem.name);
      const link = document.createElement("a");
      link.href = URL.createObjectURL(mixed);
      link.download = `${this.name} - ${without.length ? `no ${without.join(", no ")}` : "mix"}.wav`;
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
    } catch (error) {
      this.trouble.textContent = `The mix cannot be made: ${error.message}.`;
      this.trouble.hidden = false;
    }
    this.saved.disabled = false;
  }

  /** Become the song that is loaded. */
  enter() {
    if (Song.current === this) return;
    Song.current?.leave();
    Song.current = this;
    this.trouble.hidden = true;
    const changed = () => this.show();
    const failed = (stems) => this.complain(stems);
    const exact = Deck.plays(this.stems, this.rate);
    if (Channel.possible) {
      for (const stem of this.stems.filter((stem) => !stem.channel)) {
        stem.channel = new Channel(Channel.contextOf(exact ? this.rate : undefined));
        if (!exact) stem.channel.carry(stem.audio);
      }
      this.card.classList.add("metered");
      this.mix();
    }
    this.ensemble = exact
      ? new Deck(this.stems, this.rate, changed, failed)
      : new Ensemble(this.stems.map((stem) => stem.audio), changed, () =>
          failed(this.stems.filter((stem) => stem.audio.error)),
        );
    this.ensemble.seek(this.at);
    this.card.classList.add("current");
    const artwork = this.cover ? [{ src: new URL(this.cover, location.href).href }] : [];
    const about = { title: this.title, artist: this.artist, artwork };
    if ("mediaSession" in navigator) navigator.mediaSession.metadata = new MediaMetadata(about);
  }

  leave() {
    this.at = this.ensemble.time;
    this.ensemble.leave();
    this.ensemble = null;
    this.card.classList.remove("current");
    this.show();
  }

  /** Who is heard, and how loud: a muted stem never is; where stems are soloed, only they are. */
  mix() {
    const gains = this.gains();
    for (const [index, stem] of this.stems.entries()) {
      const level = Number(stem.volume.value) ** 2;
      stem.hear(gains[index]);
      stem.volume.setAttribute("aria-valuetext", level ? `${(20 * Math.log10(level)).toFixed(0)} dB` : "off");
      stem.volume.title = stem.volume.getAttribute("aria-valuetext");
      stem.volume.style.setProperty("--part", stem.volume.value);
    }
  }

  /** Say which stems cannot be played. */
  complain(stems) {
    const names = stems.map((stem) => stem.name).join(", ");
    this.trouble.textContent =
      `Cannot play ${names}: the file is gone, or this browser does not play ${stems[0].format}. ` +
      "All browsers play what is separated as wav or mp3.";
    this.trouble.hidden = false;
  }

  /** Show where the song is, now and for as long as it plays. */
  show() {
    if (this.ensemble) this.at = Math.min(this.ensemble.time, this.seconds);
    if (this.loop && this.playing && this.at >= this.loop[1]) this.ensemble.seek((this.at = this.loop[0]));
    const label = `${this.playing ? "Pause" : "Play"} ${this.name}`;
    if (this.button.ariaLabel !== label) this.button.ariaLabel = label;
    this.card.classList.toggle("playing", this.playing);
    this.card.style.setProperty("--at", this.seconds ? this.at / this.seconds : 0);
    this.position.value = this.at;
    for (const stem of this.stems) stem.measure(this.playing);
    if (this.now.textContent !== clock(this.at)) {
      this.now.textContent = clock(this.at);
      this.position.setAttribute("aria-valuetext", `${clock(this.at)} of ${clock(Math.round(this.seconds))}`);
    }
    cancelAnimationFrame(this.frame);
    if (this.playing) this.frame = requestAnimationFrame(() => this.show());
  }
}

function isPressed(button) {
  return button.getAttribute("aria-pressed") === "true";
}

function press(button, pressed) {
  button.setAttribute("aria-pressed", pressed);
}

/** Seconds as 0:07, 3:15 or 1:02:03. */
function clock(seconds) {
  const two = (number) => String(number).padStart(2, "0");
  const [h, m, s] = [seconds / 3600, (seconds / 60) % 60, seconds % 60].map(Math.floor);
  return h ? `${h}:${two(m)}:${two(s)}` : `${m}:${two(s)}`;
}

/** Whether stems are all there is of a song. */
function isWhole(names) {
  const rest = names.includes("accompaniment") ? "vocals" : names.find((name) => name.startsWith("no_"))?.slice(3);
  return rest ? names.includes(rest) && names.length === 2 : names.length === 4;
}

/** Marks of time for a ruler: about eight, at round times, none so near the end that its text would not fit. */
function ruler(seconds) {
  const step = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600].find((size) => seconds / size <= 8) ?? 7200;
  return Array.from({ length: Math.ceil(seconds / step - 0.5) }, (_, index) => {
    const mark = document.createElement("span");
    mark.textContent = clock(index * step);
    mark.style.left = `${(100 * index * step) / seconds}%`;
    return mark;
  });
}

/** A wav of 16 bits that holds audio files, each with a gain, summed. */
async function render(files, gains) {
  const load = async (file) => {
    const answer = await fetch(file);
    if (!answer.ok) throw new Error("a stem is gone");
    return answer.arrayBuffer();
  };
  const heard = files.map((file, index) => [file, gains[index]]).filter(([, gain]) => gain);
  if (!heard.length) throw new Error("every stem is silent");
  const contents = await Promise.all(heard.map(([file]) => load(file)));
  const rate = sampleRate(contents[0]);
  const context = new OfflineAudioContext(2, 1, rate); // at the stems' own rate nothing is resampled
  const signals = await Promise.all(contents.map((content) => context.decodeAudioData(content)));
  const [channels, length] = [signals[0].numberOfChannels, Math.max(...signals.map((signal) => signal.length))];
  const samples = new Int16Array(length * channels);
  for (let channel = 0; channel < channels; channel++) {
    const sum = new Float32Array(length);
    signals.forEach((signal, index) => {
      const gain = heard[index][1];
      signal.getChannelData(channel).forEach((sample, place) => (sum[place] += gain * sample));
    });
    sum.forEach((sample, place) => {
      samples[place * channels + channel] = Math.max(-32768, Math.min(32767, Math.round(sample * 32768)));
    });
  }
  return wav(samples, channels, rate);
}

/** The sample rate of a wav or flac, which a browser does not tell; 44100 for what it is not known of. */
function sampleRate(content) {
  const view = new DataView(content);
  const word = (place) => String.fromCharCode(...new Uint8Array(content, place, 4));
  if (word(0) === "RIFF") return view.getUint32(24, true);
  if (word(0) === "fLaC") return view.getUint32(18) >>> 12;
  return 44100;
}

/** A wav of interleaved samples of 16 bits. */
function wav(samples, channels, rate) {
  const bytes = samples.byteLength;
  const view = new DataView(new ArrayBuffer(44));
  const text = (place, word) => [...word].forEach((letter, index) => view.setUint8(place + index, letter.charCodeAt(0)));
  text(0, "RIFF"), view.setUint32(4, 36 + bytes, true), text(8, "WAVEfmt ");
  view.setUint32(16, 16, true), view.setUint16(20, 1, true), view.setUint16(22, channels, true);
  view.setUint32(24, rate, true), view.setUint32(28, rate * channels * 2, true);
  view.setUint16(32, channels * 2, true), view.setUint16(34, 16, true);
  text(36, "data"), view.setUint32(40, bytes, true);
  return new Blob([view, samples], { type: "audio/wav" });
}

const songs = [];
const MANY = 10; // songs from which on a search is worth its place

/** List a song; one of that name that is listed makes way. */
function list(entry) {
  const song = new Song(entry);
  const former = songs.findIndex(({ name }) => name === song.name);
  if (former >= 0) {
    if (Song.current === songs[former]) (songs[former].leave(), (Song.current = null));
    songs.splice(former, 1)[0].card.remove();
  }
  const after = songs.findIndex(({ name }) => name.localeCompare(song.name, undefined, { sensitivity: "base" }) > 0);
  songs.splice(after < 0 ? songs.length : after, 0, song);
  document.getElementById("list").insertBefore(song.card, songs[songs.indexOf(song) + 1]?.card ?? null);
  count();
  return song;
}

function count() {
  document.getElementById("count").textContent = songs.length === 1 ? "1 song" : `${songs.length} songs`;
  document.getElementById("count").hidden = document.querySelector(".keys").hidden = !songs.length;
  document.getElementById("search").hidden = songs.length < MANY;
}

JSON.parse(document.getElementById("songs").textContent).forEach(list);
count();

document.getElementById("search").addEventListener("input", ({ target }) => {
  const words = target.value.toLowerCase().split(/\s+/);
  for (const { name, title, artist, card } of songs) {
    const text = `${name} ${title} ${artist}`.toLowerCase();
    card.hidden = !words.every((word) => text.includes(word));
  }
});

// The mouse leaves the keyboard alone: after a click on a button or a slider, the space bar still means play.
document.addEventListener("mousedown", (event) => event.target.closest("button") && event.preventDefault());
document.addEventListener("pointerup", (event) => event.target.matches("input") && event.target.blur());

document.addEventListener("keydown", (event) => {
  const { key, code, target, shiftKey } = event;
  if (target.matches("input:not([type=range])")) return; // words are being typed
  const song = songs.find(({ card }) => card.contains(target)) ?? Song.current ?? songs[0];
  const stem = song?.stems[/^Digit([1-9])$/.exec(code)?.[1] - 1];
  if (!song || event.altKey || event.ctrlKey || event.metaKey) return;
  if (key === " " && !target.closest("button")) song.toggle();
  else if (key === "ArrowLeft" && !target.matches(".volume")) song.seek(song.at - (shiftKey ? 1 : 5));
  else if (key === "ArrowRight" && !target.matches(".volume")) song.seek(song.at + (shiftKey ? 1 : 5));
  else if (code === "Digit0") song.seek(0);
  else if (code === "KeyO" && !song.original.hidden) song.compare();
  else if (code === "KeyL") song.repeat(null);
  else if (stem) stem.toggle(shiftKey ? stem.mute : stem.solo);
  else return;
  event.preventDefault();
});

for (const [action, act] of Object.entries({
  play: (song) => song.playing || song.toggle(),
  pause: (song) => song.playing && song.toggle(),
  seekto: (song, { seekTime }) => song.seek(seekTime),
})) {
  navigator.mediaSession?.setActionHandler(action, (details) => Song.current && act(Song.current, details));
}
