/** One stem of a song: its row of controls, its picture and its sound. */
class Stem {
  constructor(song, { name, audio, picture }) {
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
    part("img").addEventListener("error", (event) => event.target.remove());
    part(".download").href = audio;
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
    this.picture = part(".picture");
    this.picture.addEventListener("pointerdown", (event) => {
      if (event.button) return;
      this.picture.setPointerCapture(event.pointerId);
      this.point(event);
    });
    this.picture.addEventListener("pointermove", (event) => {
      if (this.picture.hasPointerCapture(event.pointerId)) this.point(event);
    });
  }

  toggle(button) {
    press(button, !isPressed(button));
    this.song.mix();
  }

  point({ clientX }) {
    const { left, width } = this.picture.getBoundingClientRect();
    this.song.seek(((clientX - left) / width) * this.song.seconds);
  }
}

/** A song: one transport for all of its stems. Only one song is loaded at a time, so a page may list hundreds. */
class Song {
  static current = null;

  constructor({ name, seconds, stems }) {
    this.name = name;
    this.seconds = seconds;
    this.ensemble = null;
    this.at = 0;
    this.card = document.getElementById("song").content.firstElementChild.cloneNode(true);
    this.card.setAttribute("aria-label", name);
    const part = (selector) => this.card.querySelector(selector);
    part("h2").textContent = name;
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
    this.mix();
    this.show();
  }

  get playing() {
    return this.ensemble?.playing ?? false;
  }

  toggle() {
    if (this.playing) return this.ensemble.pause();
    this.enter();
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

  /** Become the song that is loaded. */
  enter() {
    if (Song.current === this) return;
    Song.current?.leave();
    Song.current = this;
    this.trouble.hidden = true;
    this.ensemble = new Ensemble(this.stems.map((stem) => stem.audio), () => this.show(), () => this.complain());
    this.ensemble.seek(this.at);
    this.card.classList.add("current");
    if ("mediaSession" in navigator) navigator.mediaSession.metadata = new MediaMetadata({ title: this.name });
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
    const soloed = this.stems.some((stem) => isPressed(stem.solo));
    for (const stem of this.stems) {
      const silent = isPressed(stem.mute) || (soloed && !isPressed(stem.solo));
      const level = Number(stem.volume.value) ** 2; // about as loudness is heard
      stem.audio.muted = silent;
      stem.audio.volume = level;
      stem.row.classList.toggle("silent", silent);
      stem.volume.setAttribute("aria-valuetext", level ? `${(20 * Math.log10(level)).toFixed(0)} dB` : "off");
      stem.volume.title = stem.volume.getAttribute("aria-valuetext");
      stem.volume.style.setProperty("--part", stem.volume.value);
    }
  }

  complain() {
    const failed = this.stems.filter((stem) => stem.audio.error);
    const names = failed.map((stem) => stem.name).join(", ");
    this.trouble.textContent =
      `Cannot play ${names}: the file is gone, or this browser does not play ${failed[0].format}. ` +
      "All browsers play what is separated with --format wav or mp3.";
    this.trouble.hidden = false;
  }

  /** Show where the song is, now and for as long as it plays. */
  show() {
    if (this.ensemble) this.at = Math.min(this.ensemble.time, this.seconds);
    const label = `${this.playing ? "Pause" : "Play"} ${this.name}`;
    if (this.button.ariaLabel !== label) this.button.ariaLabel = label;
    this.card.classList.toggle("playing", this.playing);
    this.card.style.setProperty("--at", this.seconds ? this.at / this.seconds : 0);
    this.position.value = this.at;
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

const songs = JSON.parse(document.getElementById("songs").textContent).map((song) => new Song(song));
document.getElementById("list").append(...songs.map((song) => song.card));
document.getElementById("count").textContent = songs.length === 1 ? "1 song" : `${songs.length} songs`;

// The mouse leaves the keyboard alone: after a click on a button or a slider, the space bar still means play.
document.addEventListener("mousedown", (event) => event.target.closest("button") && event.preventDefault());
document.addEventListener("pointerup", (event) => event.target.matches("input") && event.target.blur());

document.addEventListener("keydown", (event) => {
  const { key, code, target, shiftKey } = event;
  const song = songs.find(({ card }) => card.contains(target)) ?? Song.current ?? songs[0];
  const stem = song?.stems[/^Digit([1-9])$/.exec(code)?.[1] - 1];
  if (!song || event.altKey || event.ctrlKey || event.metaKey) return;
  if (key === " " && !target.closest("button")) song.toggle();
  else if (key === "ArrowLeft" && !target.matches(".volume")) song.seek(song.at - (shiftKey ? 1 : 5));
  else if (key === "ArrowRight" && !target.matches(".volume")) song.seek(song.at + (shiftKey ? 1 : 5));
  else if (code === "Digit0") song.seek(0);
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
